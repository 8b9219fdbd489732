"""`python -m benchmarks [NAME …]`: run the benchmarks named, or all, and print ratios, medians of several runs."""

import argparse
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks import events
from tests import servers

RUNS = 3


def prepare() -> None:
    """Real servers, empty tables, sixteen devices of four tenants."""
    import django

    servers.complete_environment()
    os.environ["DJANGO_SETTINGS_MODULE"] = "ingestcloud.settings"
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def make_keys() -> list[str]:
    from devices.models import Device, DeviceKey, Tenant

    keys = []
    for number in range(16):
        tenant, _ = Tenant.objects.get_or_create(slug=f"bench-{number % 4}", defaults={"backup_enabled": True})
        device, _ = Device.objects.get_or_create(tenant=tenant, name=f"bench-{number}")
        keys.append(DeviceKey.objects.issue(device)[1])
    return keys


@contextmanager
def serving(application: str, processes: int = 1) -> Iterator[int]:
    """A uvicorn with `application`; gives its port."""
    from tests.live import free_port

    port = free_port()
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--no-access-log"]
    server = subprocess.Popen([*command, "--log-level", "warning", "--workers", str(processes)])
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1)
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()


def requests(keys: list[str], count: int, size: int, seed: int) -> list[tuple[str, bytes]]:
    return [(keys[n % len(keys)], events.body(batch)) for n, batch in enumerate(events.batches(count, size, seed))]


def truncate() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE ingest_events, ingest_batches, security_alerts")
        cursor.execute("DROP TABLE IF EXISTS raw_events")
        cursor.execute("CREATE TABLE raw_events (LIKE ingest_events INCLUDING ALL)")
        cursor.execute("CHECKPOINT")


def against_copy(size: int, count: int) -> None:
    """Events/s through the endpoint against raw COPY of the same rows in commits of 500."""
    from benchmarks.load import post
    from benchmarks.raw_copy import rows_per_second

    keys, ratios = make_keys(), []
    with serving("ingestcloud.asgi:application") as port:
        post(requests(keys, 50, size, 99), 16, port)
        for seed in range(RUNS):
            truncate()
            raw = rows_per_second(os.environ["DATABASE_URL"], "raw_events", events.batches(count * size // 500, 500, 1))
            figures = post(requests(keys, count, size, seed + 1), 16, port)
            rate = count * size / figures["seconds"]
            ratios.append(rate / raw)
            print(f"  run {seed + 1}: {rate:9,.0f} events/s   COPY {raw:9,.0f} rows/s   p99 {figures['p99']:.0f} ms")
    print(f"{size} events a batch, 16 clients, against raw COPY: {statistics.median(ratios):.2f}")


def against_fastapi() -> None:
    """One event a request, 64 clients: requests/s against FastAPI and asyncpg doing the same durable work."""
    from benchmarks.load import post

    keys, ratios, tails = make_keys(), [], []
    with serving("ingestcloud.asgi:application") as ours, serving("benchmarks.fastapi_app:app") as theirs:
        for seed in range(RUNS):
            figures = {}
            for name, port, count in (("ours", ours, 20_000), ("theirs", theirs, 5_000)):
                post(requests(keys, 500, 1, 50 + seed), 64, port)
                truncate()
                figures[name] = post(requests(keys, count, 1, seed + 1), 64, port)
            rates = {name: f["requests"] / f["seconds"] for name, f in figures.items()}
            ratios.append(rates["ours"] / rates["theirs"])
            tails.append(figures["ours"]["p99"] / figures["ours"]["p50"])
            print(f"  run {seed + 1}: {rates['ours']:,.0f} against {rates['theirs']:,.0f} requests/s", figures["ours"])
    print(f"one event a request, 64 clients, against FastAPI and asyncpg: {statistics.median(ratios):.1f} times")
    print(f"one event a request, 64 clients, p99 against the median: {statistics.median(tails):.1f} times")


BENCHMARKS: dict[str, Callable[[], None]] = {
    "batches-of-500": lambda: against_copy(500, 400),
    "batches-of-100": lambda: against_copy(100, 1500),
    "single-events": against_fastapi,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], metavar="NAME", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    prepare()
    for name in names:
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
