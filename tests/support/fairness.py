"""Measures how long other clients wait while one misbehaves."""

import json
import select
import subprocess
import sys
import time

import httpx
import pytest

from tests.support.events import log
from tests.support.live import HTTP, ROOT, Server


class HeldUpError(AssertionError):
    """Somebody waited for longer than promised."""


# For a test of waiting times: on a busy machine anybody may wait, but a defect makes the others wait every time. Only a
# wait that was too long is measured again; any other failure counts at once.
measures_waiting = pytest.mark.flaky(reruns=4, reruns_delay=1, only_rerun=[HeldUpError])


def assert_within(seconds: float, waited: float) -> None:
    """Raises HeldUpError unless `waited` is less than `seconds`."""
    if waited >= seconds:
        raise HeldUpError(f"{waited:.2f} s, and {seconds:g} s are promised")


class Others:
    """Another device, which sends one small batch after another, in a process of its own.

    In the test's process it would wait for the threads of the client that misbehaves. After the `with` block, `waits`
    has the seconds that each batch took, and `answers` the status codes.
    """

    def __init__(self, server: Server, key: str) -> None:
        self._command = [sys.executable, "-m", __name__, f"{server.url}/v1/ingest", key]
        self.waits: list[float] = []
        self.answers: set[int] = set()

    def __enter__(self) -> "Others":
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *error: object) -> None:
        output, _ = self._process.communicate()  # closes its standard input, which ends it
        self.waits, answers = json.loads(output)
        self.answers = set(answers)


def main(url: str, key: str) -> None:
    """Send until the standard input ends, then print the waits and the status codes."""
    waits: list[float] = []
    answers: list[int] = []
    with httpx.Client(headers={"X-Device-Key": key}, **HTTP) as client:
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            began = time.monotonic()
            answers.append(client.post(url, json=[log()]).status_code)
            waits.append(time.monotonic() - began)
    print(json.dumps([waits, answers]))


if __name__ == "__main__":
    main(*sys.argv[1:])
