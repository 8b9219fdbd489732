"""Stores batches in PostgreSQL: a group of them in one statement, which receives the events and the alerts as JSON.

The database makes the rows, at little more cost than reading the lines of a `COPY`, and on its own processor: here
that would be the most expensive loop, and the event loop would wait for it. One statement is also one wait: each
further round trip is another turn in the queue for the interpreter's lock.
"""

from datetime import datetime

import msgspec
from django.db import connection
from psycopg import Cursor
from psycopg.types.json import Jsonb

from alerts.new_alert import COLUMNS, ORDER_LOCK, NewAlert
from ingest.batch import Batch, Inserted
from ingest.decoder import Event
from tenants.models import Module


class _Row(msgspec.Struct):
    """A batch as the statement receives it; `number` is its place in the group."""

    number: int
    key_id: int
    device_id: int
    hex_digest: str
    byte_count: int
    source: str | None
    received_at: datetime
    idempotency_key: str | None
    modules: list[str]
    events: list[Event]
    alerts: list[dict[str, object]]


ENABLED = ", ".join(f"CASE WHEN tenant.{module}_enabled THEN '{module}' END" for module in Module)
# `given` checks keys and modules again, because the first check may have used a key that this process remembered.
# `good` has one of several identical batches, in a fixed order: two transactions that wait for each other's rows would
# be a deadlock.
# Each insert names the index that may refuse a row: any other clash, such as an id that is taken because the sequence
# is behind its table, is an error and never a repeat.
# `turn` takes the lock once the events are inserted, and before any alert has its id; it is held until the commit.
# `ahead` sets the alerts' sequence forward if it was set back: a page that asks for all alerts after the last one it
# has would never see an alert with a lower id.
BATCH_COLUMNS = """tenant_id, device_id, digest, event_count, alert_count, byte_count, source, received_at,
         idempotency_key"""
BATCH_VALUES = """tenant_id, device_id, digest, jsonb_array_length(events), jsonb_array_length(alerts), byte_count,
         source, received_at, idempotency_key"""
INSERT = f"""
WITH given AS MATERIALIZED (
  SELECT batch.*, decode(hex_digest, 'hex') AS digest, tenant.id AS tenant_id,
         CASE WHEN tenant.id IS NOT NULL THEN array_remove(ARRAY[{ENABLED}], NULL) END AS enabled
    FROM jsonb_to_recordset(%s) AS batch (
      number integer, key_id bigint, device_id bigint, hex_digest text, byte_count integer,
      source inet, received_at timestamptz, idempotency_key text, modules text[], events jsonb, alerts jsonb)
    LEFT JOIN device_keys AS key
      ON key.id = key_id AND key.revoked_at IS NULL AND (key.expires_at IS NULL OR key.expires_at > received_at)
    LEFT JOIN devices AS device ON device.id = key.device_id
    LEFT JOIN tenants AS tenant ON tenant.id = device.tenant_id
), good AS MATERIALIZED (
  SELECT DISTINCT ON (device_id, coalesce(idempotency_key, ''), unnamed) *
    FROM (SELECT *, CASE WHEN idempotency_key IS NULL THEN digest END AS unnamed FROM given) AS given
   WHERE modules <@ enabled AND jsonb_array_length(events) > 0
   ORDER BY device_id, coalesce(idempotency_key, ''), unnamed, number
), unnamed AS (
  INSERT INTO ingest_batches ({BATCH_COLUMNS})
  SELECT {BATCH_VALUES}
    FROM good
   WHERE idempotency_key IS NULL
      ON CONFLICT (device_id, digest) WHERE idempotency_key IS NULL DO NOTHING
  RETURNING id, device_id, digest, idempotency_key
), named AS (
  INSERT INTO ingest_batches ({BATCH_COLUMNS})
  SELECT {BATCH_VALUES}
    FROM good
   WHERE idempotency_key IS NOT NULL
      ON CONFLICT (device_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
  RETURNING id, device_id, digest, idempotency_key
), fresh AS MATERIALIZED (
  SELECT stored.id, good.number
    FROM (SELECT * FROM unnamed UNION ALL SELECT * FROM named) AS stored
    JOIN good USING (device_id, digest)
   WHERE good.idempotency_key IS NOT DISTINCT FROM stored.idempotency_key
), stored AS (
  INSERT INTO ingest_events (tenant_id, device_id, batch_id, kind, timestamp, data, received_at)
  SELECT tenant_id, device_id, fresh.id, kind, timestamp, data, received_at
    FROM fresh
    JOIN good USING (number)
   CROSS JOIN jsonb_to_recordset(events) AS event (kind varchar(16), timestamp timestamptz, data jsonb)
  RETURNING id
), turn AS MATERIALIZED (
  SELECT pg_advisory_xact_lock({ORDER_LOCK})
    FROM (SELECT count(*) FROM stored) AS all_of_them
   WHERE EXISTS (SELECT FROM good WHERE jsonb_array_length(alerts) > 0)
), ahead AS MATERIALIZED (
  SELECT setval('security_alerts_id_seq', newest)
    FROM turn
   CROSS JOIN (SELECT max(id) AS newest FROM security_alerts) AS alerts
   WHERE newest > (SELECT last_value FROM security_alerts_id_seq)
), alerted AS (
  INSERT INTO security_alerts (tenant_id, device_id, batch_id, received_at, {", ".join(COLUMNS)})
  SELECT tenant_id, device_id, fresh.id, received_at, {", ".join(COLUMNS)}
    FROM turn
    LEFT JOIN ahead ON true
   CROSS JOIN fresh
    JOIN good USING (number)
   CROSS JOIN ROWS FROM (jsonb_to_recordset(alerts) AS (
      timestamp timestamptz, title text, severity text, source_ip inet, destination_ip inet, description text,
      status text)) WITH ORDINALITY
   ORDER BY fresh.id, ordinality
  RETURNING id, batch_id
)
SELECT given.enabled, fresh.id, ARRAY(SELECT alerted.id FROM alerted WHERE batch_id = fresh.id ORDER BY id)
  FROM given
  LEFT JOIN fresh USING (number)
 ORDER BY number
"""  # noqa: S608


def insert(batches: list[Batch]) -> tuple[list[Inserted], list[NewAlert]]:
    """Store the batches that are new and allowed, in a transaction of their own.

    Returns what was done with each, and the new alerts in id order. Raises IntegrityError if an id is taken.
    """
    rows = [_row(number, batch) for number, batch in enumerate(batches)]
    inserted: list[Inserted] = []
    alerts: list[NewAlert] = []
    connection.ensure_connection()
    # Django's own cursor would put the JSON into the text of the statement.
    with connection.wrap_database_errors, Cursor(connection.connection) as cursor:
        cursor.execute(INSERT, [Jsonb(rows, dumps=msgspec.json.encode)], prepare=True)
        for batch, (modules, batch_id, alert_ids) in zip(batches, cursor.fetchall(), strict=True):
            inserted.append(Inserted(None if modules is None else set(modules), batch_id is not None))
            for alert, pk in zip(batch.alerts, alert_ids, strict=False):  # a repeat has no new ones
                alert.pk = pk
                alerts.append(alert)
    return inserted, sorted(alerts, key=lambda alert: alert.pk)


def _row(number: int, batch: Batch) -> _Row:
    return _Row(
        number=number,
        key_id=batch.key.pk,
        device_id=batch.key.device_id,
        hex_digest=batch.digest.hex(),
        byte_count=batch.byte_count,
        source=batch.source,
        received_at=batch.received_at,
        idempotency_key=batch.idempotency_key,
        modules=list(batch.modules),
        events=batch.events,
        alerts=[alert.row for alert in batch.alerts],
    )
