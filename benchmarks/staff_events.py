"""The pages on which staff look for events, at ten million events of fifty devices, and what their indexes cost."""

import os
import statistics
import time
import urllib.request
from datetime import datetime, timedelta

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
        cursor.execute("SELECT brin_summarize_new_values(indexrelid::regclass) FROM pg_index JOIN pg_class"
                       " ON oid = indexrelid WHERE relam = (SELECT oid FROM pg_am WHERE amname = 'brin')"
                       " AND relkind = 'i'")
        cursor.execute("CHECKPOINT")


def make_devices() -> list:
    from devices.models import Device, Tenant

    devices = []
    for number in range(1, DEVICES + 1):
        slug = SMALL if number >= SPARSE else TENANTS[number % len(TENANTS)]
        tenant, _ = Tenant.objects.get_or_create(slug=slug, defaults={"name": slug, "backup_enabled": True})
        devices.append(Device.objects.get_or_create(tenant=tenant, name=f"staff-{number}")[0])
    return devices
