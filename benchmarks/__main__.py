"""`python -m benchmarks [NAME …]`: the benchmarks named, or all, as a table and as `build/bench.json`."""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from benchmarks import (
    audit,
    console,
    environment,
    fanout,
    find,
    memory,
    single,
    staff_events,
    staff_lists,
    throughput,
)

BENCHMARKS: list[tuple[Callable[[], list[float]], str]] = [
    (throughput.batch500_vs_copy, "500 events a batch, 16 clients, against raw COPY on two connections"),
    (throughput.batch100_vs_copy, "100 events a batch, 16 clients, against the same"),
    (throughput.flood_vs_copy, "repeats of one alert, 20 a batch, from 16 devices of a tenant, against the same"),
    (throughput.rules100_vs_none, "100 events a batch, with a hundred suppression rules in force, against none"),
    (single.single_vs_fastapi, "one event a request, 64 clients, against FastAPI and asyncpg"),
    (throughput.batch500_vs_plain, "500 events a batch, against the plain way"),
    (single.single_p99_vs_median, "one event a request, 64 clients: p99 against the median"),
    (throughput.large_vs_empty, "a table that holds 20 million events, against an empty one"),
    (memory.memory_growth, "memory after 10 million events, against after 100 thousand"),
    (throughput.sqlite500_vs_raw, "SQLite, 500 events a batch, against raw executemany"),
    (fanout.fanout1000_p99_ms, "milliseconds from POST to the last of 1,000 pages, p99 of 100 alerts"),
    (fanout.groups_fanout1000_p99_ms, "the same to the last of 1,000 consoles"),
    (console.console_click_ms, "the console, 100,000 groups, 50 alerts/s: milliseconds of CPU for a click"),
    (console.console_flush_ms, "the same: milliseconds of CPU for a frame of the socket"),
    (console.console_heap_growth, "the same: the heap after ten minutes, against at the beginning"),
    (find.find_ms, "milliseconds of a search of a million groups, the median over all kinds"),
    (audit.audit_ms, "milliseconds of a page of the admin's audit with a million entries, the median over all kinds"),
    (staff_events.staff_events_ms, "milliseconds of a page on which staff look for events among ten million"),
    (staff_events.indexes_vs_none, "500 events a batch, with the indexes of these pages, against without them"),
    (staff_lists.staff_list_ms, "milliseconds of CPU for a staff list of 50 rows, the median of eight lists"),
]
RESULTS = Path(__file__).parent.parent / "build" / "bench.json"


def main() -> None:
    names = [function.__name__ for function, _ in BENCHMARKS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *names], metavar="NAME", help=", ".join(names))
    chosen = parser.parse_args().names or names
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers end with us
    environment.prepare()
    results, lines = [], []
    for function, description in BENCHMARKS:
        name = function.__name__
        if name not in chosen:
            continue
        print(name, file=sys.stderr, flush=True)
        figures = function()
        results.append({"name": name, "ratio": statistics.median(figures), "low": min(figures), "high": max(figures)})
        lines.append("{name:22} {ratio:8.2f} {low:8.2f} {high:8.2f}".format(**results[-1]) + f"   {description}")
    print(f"{'':22} {'median':>8} {'low':>8} {'high':>8}", *lines, "", *machine(), sep="\n")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def machine() -> list[str]:
    import psutil
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        server = cursor.fetchone()[0].split()[0]
    names = [line.partition(": ")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    packages = ", ".join(f"{name} {version(name)}" for name in ("django", "psycopg", "uvicorn", "msgspec", "fastapi"))
    memory_gib = psutil.virtual_memory().total / 2**30
    return [
        f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB",
        f"Python {platform.python_version()}, PostgreSQL {server}, {packages}",
    ]


def _cpu_lines() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


if __name__ == "__main__":
    main()
