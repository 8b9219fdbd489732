"""The memory of a server process after ten million events, against after the first hundred thousand."""

import os

import psutil

from benchmarks import environment, events
from benchmarks.environment import say
from benchmarks.load import PASS, post

FIRST = 100_000
PASS_EVENTS = 100_000


def memory_growth() -> list[float]:
    total = int(os.environ.get("BENCH_EVENTS", "10000000"))
    keys = environment.make_keys()
    prepared = [
        (keys[n % 16], marked_body(batch)) for n, batch in enumerate(events.batches(PASS_EVENTS // 500, 499, 1))
    ]
    unmarked = [(key, body.replace(PASS, b"first---")) for key, body in prepared]
    environment.truncate()
    with environment.serving() as server, environment.pages(server, ["bench-0"]):
        process = psutil.Process(server.pid)
        post(unmarked, 16, server.port)
        first = process.memory_info().rss
        for part in range(10):
            # Each part has new bodies: a repeat would not be stored.
            renamed = [(key, body.replace(b"pass ", b"part%d " % part)) for key, body in prepared]
            post(renamed, 16, server.port, passes=max(2, (total - FIRST) // PASS_EVENTS // 10))
            say(f"{process.memory_info().rss / 2**20:.0f} MiB, at first {first / 2**20:.0f} MiB")
            environment.truncate()
        return [process.memory_info().rss / first]


def marked_body(batch: list[dict[str, object]]) -> bytes:
    message = {"level": "info", "message": f"pass {PASS.decode()}"}
    return events.body([{"kind": "log", "timestamp": "2026-06-06T10:00:00Z", "data": message}, *batch])
