"""Events a second, in batches: against raw COPY, the plain way, an empty table, and SQLite alone."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import psycopg

from benchmarks import environment, events, raw_sqlite
from benchmarks.environment import TENANTS, say
from benchmarks.load import post
from benchmarks.raw_copy import events_per_second

RUNS = 5
CLIENTS = 16
COPY_EVENTS = 500

Batches = list[list[dict[str, object]]]


def requests(keys: list[str], batches: Batches) -> list[tuple[str, bytes]]:
    """Distinct bodies, from all devices in turn."""
    return [(keys[n % len(keys)], events.body(batch)) for n, batch in enumerate(batches)]


def rate(server: environment.Serving, keys: list[str], batches: Batches) -> float:
    return sum(map(len, batches)) / post(requests(keys, batches), CLIENTS, server.port)["seconds"]


def copy_rate(batches: Batches) -> float:
    """However small our batches are, `COPY` commits COPY_EVENTS at a time."""
    copied = list(chain.from_iterable(batches))
    commits = [copied[first : first + COPY_EVENTS] for first in range(0, len(copied), COPY_EVENTS)]
    return events_per_second(os.environ["DATABASE_URL"], commits)


def against_copy(make: Callable[[int], Batches], tenants: Sequence[str] = TENANTS) -> list[float]:
    """`make` returns the batches of a run, given its number."""
    keys, ratios, copied = environment.make_keys(tenants), [], make(0)
    with environment.serving() as server, environment.pages(server, tenants):
        # A warm-up of both: the first rows go into new files, which takes longer.
        copy_rate(copied), rate(server, keys, make(1))
        for run in range(RUNS):
            environment.truncate()
            raw = copy_rate(copied)
            environment.truncate()
            ours = rate(server, keys, make(2 + run))
            say(f"{ours:9,.0f} events/s   COPY {raw:9,.0f} events/s")
            ratios.append(ours / raw)
    return ratios


def batch500_vs_copy() -> list[float]:
    return against_copy(lambda run: events.batches(500, 500, run))


def batch100_vs_copy() -> list[float]:
    return against_copy(lambda run: events.batches(2000, 100, run))


def flood_vs_copy() -> list[float]:
    return against_copy(lambda run: events.floods(2000, 20, run), TENANTS[:1])


def rules100_vs_none() -> list[float]:
    """In turn with as many rules in force as a tenant may have, none of which suppresses an alert, and with none."""
    keys, ratios = environment.make_keys(), []
    with environment.serving() as server, environment.pages(server, TENANTS):
        rate(server, keys, events.batches(1000, 100, 0))
        for run in range(RUNS):
            rates = {}
            for rules in (0, 100):
                environment.truncate()
                environment.make_rules(rules)
                rates[rules] = rate(server, keys, events.batches(2000, 100, 1 + 2 * run + (rules > 0)))
            say(f"{rates[100]:9,.0f} events/s   without rules {rates[0]:9,.0f} events/s")
            ratios.append(rates[100] / rates[0])
    return ratios


def batch500_vs_plain() -> list[float]:
    keys, ratios = environment.make_keys(), []
    with environment.serving() as server, environment.serving_plain() as plain:
        rate(server, keys, events.batches(200, 500, 1)), rate(plain, keys, events.batches(10, 500, 2))
        for run in range(RUNS):
            environment.truncate()
            theirs = rate(plain, keys, events.batches(20, 500, 10 + run))
            environment.truncate()
            ours = rate(server, keys, events.batches(500, 500, 20 + run))
            say(f"{ours:9,.0f} events/s   plain {theirs:9,.0f} events/s")
            ratios.append(ours / theirs)
    return ratios


FILL = """
WITH devices AS (
  SELECT array_agg(id ORDER BY id) AS ids, array_agg(tenant_id ORDER BY id) AS tenants FROM devices)
INSERT INTO ingest_events (tenant_id, device_id, batch_id, kind, timestamp, data, received_at)
SELECT tenants[1 + n %% 16], ids[1 + n %% 16], n / 500,
       (ARRAY['telemetry', 'telemetry', 'log', 'discovery', 'backup_event'])[1 + n %% 5],
       now() - random() * interval '20 days',
       jsonb_build_object('level', 'info', 'source', 'edge-agent', 'cpu_percent', n %% 100, 'rx_bytes', n,
                          'message', 'pump ' || n || ' pressure within limits, as it has been all the time'),
       now()
  FROM devices, generate_series(%(first)s::bigint, %(last)s::bigint) AS n
"""
FILL_BATCHES = """
INSERT INTO ingest_batches (tenant_id, device_id, digest, event_count, alert_count, byte_count, received_at)
SELECT 1, n %% 16, sha256(n::text::bytea), 500, 10, 90000, now() FROM generate_series(1, %s) AS n
"""
FILL_GROUPS = """
INSERT INTO alert_groups
       (tenant_id, fingerprint, title, severity, status, count, first_seen_at, last_seen_at, last_alert_id, revision)
SELECT 1, substr(sha256(n::text::bytea), 1, 16), 'Port scan ' || n, 'high', 'new', 10, now(), now(), 0,
       nextval('alert_groups_revision_seq')
  FROM generate_series(1, %s) AS n
"""
FILL_ALERTS = """
INSERT INTO security_alerts
       (tenant_id, device_id, batch_id, timestamp, received_at, title, severity, description, group_id)
SELECT tenant_id, id, n, now(), now(), 'Port scan', 'high', 'SYN scan on 256 ports', n
  FROM devices, generate_series(1, %s) AS n
"""


def large_vs_empty() -> list[float]:
    """Alternate between two databases on the same server: filling one takes minutes, and a machine's speed drifts."""
    rows = int(os.environ.get("BENCH_ROWS", "20000000"))
    keys, ratios = environment.make_keys(), []
    with environment.copy_of_database() as url:
        fill(url, rows)
        with environment.serving() as empty, environment.serving(DATABASE_URL=url) as large:
            servers = {"empty": empty, "large": large}
            for server in servers.values():
                rate(server, keys, events.batches(500, 500, 1))
            for run in range(RUNS):
                seconds = {"empty": 0.0, "large": 0.0}
                # The disk is still busy with the turn before, so each database goes once first and once second.
                for turn, name in enumerate(("empty", "large", "large", "empty")):
                    environment.truncate()  # the database that must be empty; the checkpoint is for both
                    batches = events.batches(500, 500, 2 + 2 * run + turn // 2)
                    seconds[name] += 1 / rate(servers[name], keys, batches)
                say(
                    "large {large:.2f} s a million   empty {empty:.2f} s".format(
                        **{n: 5e5 * s for n, s in seconds.items()}
                    )
                )
                ratios.append(seconds["empty"] / seconds["large"])
    return ratios


def fill(url: str, rows: int) -> None:
    say(f"filling the table with {rows:,} events")
    with psycopg.connect(url, autocommit=True) as connection:
        for first in range(0, rows, 1_000_000):
            connection.execute(FILL, {"first": first, "last": min(first + 1_000_000, rows) - 1})
        connection.execute(FILL_BATCHES, [rows // 500])
        connection.execute(FILL_GROUPS, [rows // 800])
        connection.execute(FILL_ALERTS, [rows // 800])
        connection.execute("VACUUM ANALYZE")  # otherwise autovacuum would do it during the measurement
        connection.execute("CHECKPOINT")


def sqlite500_vs_raw() -> list[float]:
    """Each writes into a copy of the same file, which has devices but no events."""
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = folder / "template.sqlite3"
        keys = sqlite_keys(sqlite_at(template))
        for run in range(RUNS):
            raw_file, served_file = (Path(shutil.copy(template, folder / f"{who}-{run}")) for who in ("raw", "served"))
            raw = raw_sqlite.events_per_second(raw_file, events.batches(200, 500, 1))
            with environment.serving(**sqlite_at(served_file)) as server:
                rate(server, keys, events.batches(20, 500, 1))
                ours = rate(server, keys, events.batches(200, 500, 2))
            say(f"{ours:9,.0f} events/s   executemany {raw:9,.0f} events/s")
            ratios.append(ours / raw)
    return ratios


def sqlite_at(file: Path) -> dict[str, str]:
    return {"DATABASE_URL": f"sqlite:///{file}", "REDIS_URL": ""}


def sqlite_keys(variables: dict[str, str]) -> list[str]:
    code = (
        "import django; django.setup(); from django.core.management import call_command;"
        "call_command('migrate', verbosity=0); from benchmarks.environment import make_keys; print(*make_keys())"
    )
    return subprocess.check_output([sys.executable, "-c", code], env=os.environ | variables, text=True).split()
