"""Shared by the tests of real clients: where their configurations are, and which programs they need."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.live import ROOT

CLIENTS = ROOT / "docs" / "clients"
THEIRS = ROOT.parent / "shared" / "real-clients"  # next to the checkout, set up independently of us


OPTIONAL = {"node-red", "tenzir"}  # not in Debian, and up to a gigabyte


def need(*programs: str) -> None:
    """Skip if a program is missing; with REAL_CLIENTS=required that is a failure, except for the OPTIONAL ones."""
    absent = {program for program in programs if shutil.which(program) is None}
    if absent - OPTIONAL and os.environ.get("REAL_CLIENTS") == "required":
        pytest.fail(f"{', '.join(absent)} must be installed here")
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed; .ci/run has Debian's packages")


def examples(language: str) -> list[str]:
    """The examples of docs/devices.md in `language`."""
    page = (ROOT / "docs" / "devices.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def adapt(name: str, folder: Path, replacements: Mapping[str, str]) -> Path:
    """Copy our file `name` into `folder`, with its placeholders replaced as a user would."""
    text = (CLIENTS / name).read_text()
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    copy = folder / name
    copy.write_text(text)
    copy.chmod((CLIENTS / name).stat().st_mode)
    return copy
