"""The direction of imports: each room may import those below it, never back."""

import ast

import pytest

from tests.support.live import ROOT

MAY_IMPORT = {
    "edge_agent": set(),
    "common": set(),
    "tenants": {"common"},
    "devices": {"common", "tenants"},
    "alerts": {"common", "tenants", "devices"},
    "ingest": {"common", "tenants", "devices", "alerts"},
}
ROOMS = {*MAY_IMPORT, "ingestcloud", "tests", "benchmarks", "tools"}


def imported(source: str) -> set[str]:
    """The top-level packages that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_those_below_it(room):
    modules = list((ROOT / room).rglob("*.py"))
    assert modules
    for module in modules:
        foreign = (imported(module.read_text()) & ROOMS) - MAY_IMPORT[room] - {room}
        assert not foreign, f"{module.relative_to(ROOT)} imports {foreign}"
