"""How batches go into PostgreSQL: a group of them by one statement, which takes the events as JSON.

The database makes the rows of the events, for little more than it needs to read the lines of a `COPY`, and on its
own processor: here it would be the most expensive loop, and the event loop would wait for it.
"""

from datetime import datetime

import msgspec
from django.db import connection
from psycopg import Cursor
from psycopg.types.json import Jsonb

from devices.models import Module
from ingest.batch import Batch
from ingest.decoder import Event


class _Row(msgspec.Struct):
    """What the statement takes of a batch."""

    key_id: int
    device_id: int
    hex_digest: str
    alert_count: int
    byte_count: int
    source: str | None
    received_at: datetime
    modules: list[str]
    events: list[Event]


# The keys and modules are looked at once more, for the look-up before may have come from a memory of the key.
# In a fixed order: two transactions that wait for each other's rows would be a deadlock.
MODULES_ENABLED = " AND ".join(f"(tenant.{module}_enabled OR NOT modules ? '{module}')" for module in Module)
INSERT = f"""
WITH given AS MATERIALIZED (
  SELECT *, decode(hex_digest, 'hex') AS digest
    FROM jsonb_to_recordset(%s) AS batch (
      key_id bigint, device_id bigint, hex_digest text, alert_count integer, byte_count integer,
      source inet, received_at timestamptz, modules jsonb, events jsonb)
), fresh AS (
  INSERT INTO ingest_batches
         (tenant_id, device_id, digest, event_count, alert_count, byte_count, source, received_at)
  SELECT tenant_id, given.device_id, given.digest, jsonb_array_length(events), alert_count, byte_count, source,
         received_at
    FROM given
    JOIN devices_devicekey AS key ON key.id = key_id
    JOIN devices_device AS device ON device.id = given.device_id
    JOIN devices_tenant AS tenant ON tenant.id = tenant_id
   WHERE key.revoked_at IS NULL AND (key.expires_at IS NULL OR key.expires_at > given.received_at)
     AND {MODULES_ENABLED}
   ORDER BY given.device_id, given.digest
      ON CONFLICT (device_id, digest) DO NOTHING
  RETURNING id, tenant_id, device_id, digest, received_at
), stored AS (
  INSERT INTO ingest_events (tenant_id, device_id, batch_id, kind, timestamp, data, received_at)
  SELECT fresh.tenant_id, device_id, fresh.id, kind, timestamp, data, fresh.received_at
    FROM fresh
    JOIN given USING (device_id, digest)
   CROSS JOIN jsonb_to_recordset(events) AS event (kind varchar(16), timestamp timestamptz, data jsonb)
)
SELECT id, device_id, digest FROM fresh
"""  # noqa: S608


def insert(batches: list[Batch]) -> list[tuple[int, Batch]]:
    """Insert those of `batches` whose key is still good and that are new, with their events; give their ids too.

    It is one transaction also where none is running.
    """
    by_identity = {batch.identity: batch for batch in batches}
    connection.ensure_connection()
    # Django's own cursor would put the JSON into the text of the statement.
    with connection.wrap_database_errors, Cursor(connection.connection) as cursor:
        cursor.execute(INSERT, [Jsonb([_row(batch) for batch in batches], dumps=msgspec.json.encode)], prepare=True)
        return [(batch_id, by_identity[device_id, digest]) for batch_id, device_id, digest in cursor.fetchall()]


def _row(batch: Batch) -> _Row:
    return _Row(
        key_id=batch.key.pk,
        device_id=batch.key.device_id,
        hex_digest=batch.digest.hex(),
        alert_count=len(batch.alerts),
        byte_count=batch.byte_count,
        source=batch.source,
        received_at=batch.received_at,
        modules=list(batch.modules),
        events=batch.events,
    )
