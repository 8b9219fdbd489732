"""The pages on which staff look for events, at ten million events of fifty devices, and what their indexes cost."""

import os
import statistics
import time
import urllib.error
import urllib.request
from datetime import timedelta

from benchmarks import environment, events
from benchmarks.environment import TENANTS, say
from benchmarks.throughput import rate

RUNS = 7
TURNS = 5
WEEKS = 5  # over which the events are spread
SMALL = "bench-small"  # the tenant of the last two devices
DEVICES = 50
SPARSE, SILENT = 49, 50  # numbers of devices: one event in each batch; nothing for weeks
# Sixteen writers at the same time: the events of sixteen batches lie between each other. After each such block the
# sparse device sends a batch with a single event. The silent one stops after the first tenth.
WRITERS, BATCH = 16, 500
FILL_BATCHES = """
INSERT INTO ingest_batches (id, tenant_id, device_id, digest, event_count, alert_count, byte_count, received_at)
SELECT n + 1, tenants[device], devices[device], sha256(n::text::bytea),
       CASE WHEN n % 17 = 16 THEN 1 ELSE 500 END, 0, 90000, received_at
  FROM bench, generate_series(0, 17 * blocks - 1) AS n
 CROSS JOIN LATERAL bench_batch(n) AS batch (device, received_at)
"""
FILL_EVENTS = """
INSERT INTO ingest_events (id, tenant_id, device_id, batch_id, kind, timestamp, data, received_at)
SELECT 8001 * block + place + 1, tenants[device], devices[device], n + 1,
       (ARRAY['telemetry', 'log', 'telemetry', 'discovery', 'backup_event'])[1 + place %% 5],
       received_at - 5 * interval '1 s',
       CASE place %% 5
         WHEN 3 THEN jsonb_build_object('ip', '10.' || block %% 256 || '.' || place / 256 || '.' || place %% 256,
                                        'hostname', 'plc-' || place %% 1000, 'vendor', 'Siemens')
         WHEN 1 THEN jsonb_build_object('level', 'info', 'source', 'edge-agent',
                                        'message', 'pump ' || block || '-' || place || ' pressure within limits')
         ELSE jsonb_build_object('cpu_percent', place %% 100, 'memory_percent', block %% 100, 'interface', 'eth0',
                                 'rx_bytes', place * 1000, 'tx_bytes', place * 777) END,
       received_at
  FROM bench, generate_series(%s::bigint, %s::bigint) AS block, generate_series(0, 8000) AS place
 CROSS JOIN LATERAL (SELECT 17 * block + CASE WHEN place = 8000 THEN 16 ELSE place %% 16 END AS n) AS numbered
 CROSS JOIN LATERAL bench_batch(n) AS batch (device, received_at)
"""
PREPARE = """
DROP TABLE IF EXISTS bench CASCADE;
CREATE TABLE bench AS SELECT %s::bigint AS blocks, %s::timestamptz AS since, %s::interval AS step,
                             %s::bigint[] AS devices, %s::bigint[] AS tenants;
CREATE OR REPLACE FUNCTION bench_batch(n bigint, OUT device integer, OUT received_at timestamptz) STABLE AS $$
  SELECT CASE WHEN n %% 17 = 16 THEN 49
              WHEN n / 17 * 10 < blocks AND n %% 50 = 0 THEN 50
              ELSE 1 + (n / 17 * 16 + n %% 17) %% 48 END,
         since + n / 17 * step + n %% 17 * interval '10 ms'
    FROM bench
$$ LANGUAGE sql;
"""


def fill(rows: int) -> None:
    """Make the devices, and about as many events of theirs, unless the table has them."""
    from django.db import connection
    from django.utils import timezone

    from common.sequences import set_forward
    from ingest.partitions import make, week_of
    from ingest.storing.store import TABLES

    blocks = max(rows // (WRITERS * BATCH), 1)
    now = timezone.now()
    since = now - timedelta(weeks=WEEKS)
    for week in range(WEEKS + 1):
        make(week_of(since + timedelta(weeks=week)))
    devices = make_devices()
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(max(id), 0) FROM ingest_events")
        if cursor.fetchone()[0] >= 8001 * blocks:
            return
        say(f"filling the table with {8001 * blocks:,} events")
        environment.truncate()
        step = (now - since) / blocks
        cursor.execute(PREPARE, [blocks, since, step, [d.pk for d in devices], [d.tenant_id for d in devices]])
        cursor.execute(FILL_BATCHES)
        for first in range(0, blocks, 100):
            cursor.execute(FILL_EVENTS, [first, min(first + 100, blocks) - 1])
        set_forward(TABLES)
        cursor.execute("VACUUM ANALYZE ingest_events, ingest_batches")
        cursor.execute(
            "SELECT brin_summarize_new_values(indexrelid::regclass) FROM pg_index JOIN pg_class"
            " ON oid = indexrelid WHERE relam = (SELECT oid FROM pg_am WHERE amname = 'brin')"
            " AND relkind = 'i'"
        )
        cursor.execute("CHECKPOINT")


def make_devices() -> list:
    from devices.models import Device, Tenant

    devices = []
    for number in range(1, DEVICES + 1):
        slug = SMALL if number >= SPARSE else TENANTS[number % len(TENANTS)]
        tenant, _ = Tenant.objects.get_or_create(slug=slug, defaults={"name": slug, "backup_enabled": True})
        devices.append(Device.objects.get_or_create(tenant=tenant, name=f"staff-{number}")[0])
    return devices


def staff_events_ms() -> list[float]:
    """The median of each page in milliseconds, as a superuser and as staff of the smallest tenant."""
    rows = int(os.environ.get("BENCH_EVENTS", "10000000"))
    fill(rows)
    addresses = pages()
    cookies = {
        "superuser": environment.log_in(is_staff=True, is_superuser=True),
        "staff": environment.log_in(SMALL, is_staff=True),
    }
    medians = []
    with environment.serving() as server:
        for name, address in addresses.items():
            for who, cookie in cookies.items():
                times = [ask(server.port, cookie, address) for _ in range(RUNS + 1)][1:]
                medians.append(statistics.median(times))
                say(f"{name}, {who}: {medians[-1]:.0f} ms")
    return medians


def pages() -> dict[str, str]:
    """The pages, by what is asked for."""
    from devices.models import Device
    from ingest.models import IngestBatch, IngestEvent

    busy, sparse, silent = (Device.objects.get(name=f"staff-{number}") for number in (1, SPARSE, SILENT))
    last = {device: IngestBatch.objects.filter(device=device).order_by("-pk")[0] for device in (busy, sparse, silent)}
    middle = IngestEvent.objects.order_by("-pk")[0].pk // 2
    page = "/admin/ingest/ingestevent/?"
    found = {
        "the newest events": page,
        "the middle of the list": f"{page}before={middle}",
        "a kind": f"{page}kind__exact=discovery",
        "a kind that nothing has": f"{page}kind__exact=security_alert",
    }
    for name, device in (("a busy", busy), ("a sparse", sparse), ("a silent", silent)):
        moment = last[device].received_at.strftime("%Y-%m-%d+%H:%M")
        of = f"{page}device__id__exact={device.pk}"
        found |= {
            f"a batch of {name} device": f"{page}batch={last[device].pk}",
            f"{name} device": of,
            f"{name} device, an older page": f"{of}&before={last[device].pk},0",
            f"{name} device, around a moment": f"{of}&around={moment}",
            f"{name} device, around a moment by its own clock": f"{of}&around={moment}&clock=device",
            f"{name} device, over the API": f"/api/v1/devices/{device.pk}/events?around={moment.replace('+', 'T')}:00Z",
            f"{name} device, a kind that it has never sent": f"{of}&kind__exact=security_alert",
            f"{name} device, a text that it has never sent": f"{of}&q=nowhere",
        }
    moment = last[silent].received_at.strftime("%Y-%m-%d+%H:%M")
    return found | {
        "around a moment": f"{page}around={moment}",
        "around a moment by the devices' clocks": f"{page}around={moment}&clock=device",
        "a common text": f"{page}q=pressure",
        "a text that is nowhere": f"{page}q=nowhere",
        "an address": f"{page}q=10.1.2.3",
        "a network": f"{page}q=10.240.0.0/12",
    }


def ask(port: int, cookie: str, address: str) -> float:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{address}", headers={"Cookie": cookie})
    begin = time.perf_counter()
    try:
        with urllib.request.urlopen(request) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        if error.code != 404:  # of a device of another tenant
            raise
    return (time.perf_counter() - begin) * 1000


def indexes_vs_none() -> list[float]:
    """Events a second at 500 a batch from sixteen clients, by turns with both indexes of these pages and without."""
    from django.core.management import call_command

    keys, ratios = environment.make_keys(), []
    states = {"with": "0004_find_events", "without": "0003_counts_by_the_minute"}
    with environment.serving() as server:
        rate(server, keys, events.batches(500, 500, 1))
        for run in range(TURNS):
            seconds = dict.fromkeys(states, 0.0)
            # The disk is still busy with the turn before, so each goes once first and once second.
            for turn, name in enumerate(("with", "without", "without", "with")):
                environment.truncate()
                call_command("migrate", "ingest", states[name], verbosity=0)
                seconds[name] += 1 / rate(server, keys, events.batches(500, 500, 2 + 4 * run + turn))
            say(
                "with {with:.2f} s a million   without {without:.2f} s".format(
                    **{n: 5e5 * s for n, s in seconds.items()}
                )
            )
            ratios.append(seconds["without"] / seconds["with"])
    call_command("migrate", "ingest", verbosity=0)
    return ratios
