"""What the tests of real clients share: where their configurations are, and what must be installed."""

import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.live import ROOT

CLIENTS = ROOT / "docs" / "clients"
THEIRS = ROOT.parent / "shared" / "real-clients"  # beside the checkout, set up by somebody else


OPTIONAL = {"node-red", "tenzir"}  # not Debian's, and up to a gigabyte


def need(*programs: str) -> None:
    """Skip if a program is absent; with REAL_CLIENTS=required that is a failure, but for the OPTIONAL ones."""
    absent = {program for program in programs if shutil.which(program) is None}
    if absent - OPTIONAL and os.environ.get("REAL_CLIENTS") == "required":
        pytest.fail(f"{', '.join(absent)} must be installed here")
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed; .ci/run has Debian's packages")


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until `condition` holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def examples(language: str) -> list[str]:
    """The examples of docs/devices.md in `language`."""
    page = (ROOT / "docs" / "devices.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def adapt(name: str, folder: Path, replacements: Mapping[str, str]) -> Path:
    """A copy of our file `name` in `folder`, each text replaced as a user would."""
    text = (CLIENTS / name).read_text()
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    copy = folder / name
    copy.write_text(text)
    copy.chmod((CLIENTS / name).stat().st_mode)
    return copy
