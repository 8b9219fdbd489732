"""From the POST of an alert to the last of a thousand open pages."""

import json
import statistics
import subprocess
import sys

from benchmarks import environment
from benchmarks.environment import say

BURSTS = 5
PAGES = 1000
PAGES_OF_A_USER = 20  # at most: `alerts.logins.MAX_SOCKETS`
ALERTS = 100


def fanout1000_p99_ms() -> list[float]:
    """The p99 of each burst in milliseconds."""
    return p99s("/api/ws/security")


def groups_fanout1000_p99_ms() -> list[float]:
    """The p99 of each burst in milliseconds: each alert begins a group."""
    return p99s("/api/ws/groups")


def p99s(address: str) -> list[float]:
    key = environment.make_keys()[0]
    cookies = [environment.log_in("bench-0") for _ in range(PAGES // PAGES_OF_A_USER)] * PAGES_OF_A_USER
    tails = []
    with environment.serving() as server:
        for _ in range(BURSTS):
            command = [sys.executable, "-m", "benchmarks.sockets", str(server.port), json.dumps(cookies)]
            command += [key, str(ALERTS), address]
            milliseconds = json.loads(subprocess.check_output(command))
            cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
            say(f"p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms")
            tails.append(cuts[98])
    return tails
