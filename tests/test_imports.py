"""The floors: each room imports only the rooms below it, and nothing imports tests, benchmarks or tools."""

import ast

import pytest

from tests.support.live import ROOT

# From the ground up. Some rooms do not exist yet; their floors are reserved.
FLOORS = (
    "common",
    "tenants",
    "exports",
    "devices",
    "alerts",
    "ingest",
    "insights",
    "notifications",
    "accounts",
    "api",
    "ingestcloud",
)
APART = ("edge_agent",)  # programs for other machines: they import no room
WORKSHOPS = ("tests", "benchmarks", "tools")
ROOMS = {*FLOORS, *APART, *WORKSHOPS}
# The top room has a command that runs the agent on this machine.
ALSO = {"ingestcloud": {"edge_agent"}}


def imported(source: str) -> set[str]:
    """The top-level packages that a module imports, anywhere in its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("room", [room for room in (*FLOORS, *APART) if (ROOT / room).exists()])
def test_a_room_imports_only_the_rooms_below_it(room):
    below = set(FLOORS[: FLOORS.index(room)]) if room in FLOORS else set()
    modules = list((ROOT / room).rglob("*.py"))
    assert modules
    for module in modules:
        foreign = (imported(module.read_text()) & ROOMS) - below - ALSO.get(room, set()) - {room}
        assert not foreign, f"{module.relative_to(ROOT)} imports {foreign}"


def test_every_package_has_a_floor():
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert packages <= ROOMS
