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

from alerts.models import SILENCE_SECONDS, Severity
from alerts.new_alert import COLUMNS, NewAlert
from alerts.order import ORDER_LOCK
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
    telemetry_count: int
    log_count: int
    discovery_count: int
    backup_event_count: int


ENABLED = ", ".join(f"CASE WHEN tenant.{module}_enabled THEN '{module}' END" for module in Module)
# `given` checks keys and modules again, because the first check may have used a key that this process remembered.
# `good` has one of several identical batches, in a fixed order: two transactions that wait for each other's rows would
# be a deadlock.
# Each insert names the index that may refuse a row: any other clash, such as an id that is taken because the sequence
# is behind its table, is an error and never a repeat.
# `turn` takes the lock once the events are inserted and the alerts are read, and before any alert has its id or any
# group its revision; it is held until the commit.
# `ahead` sets a sequence forward if it was set back: a page that asks for everything after the last alert or change it
# has would never see one with a lower number.
# `rules` has what suppresses alerts; usually it is empty, and then `suppressed` costs nothing. Of several rules that
# suppress an alert, the oldest counts it. The conditions are those of `alerts.suppression`.
# `folded` has one row for each group that the alerts belong to. If all of a group's alerts in this statement are
# suppressed, its `count` is 0, and the other columns tell about the suppressed ones.
# `written` writes each group once. The statement sees the groups as they were before it waited for its turn, but a
# conflict finds them as they are now, so a group that was begun meanwhile is joined. `known_id` keeps the sequence from
# giving an id to each repeat: the admin, which looks back by ids, would find little. If a group was closed meanwhile,
# its id is taken, and the statement is tried again. (An update would read the groups again only by setting up the whole
# statement once more: that cost a tenth of all batches.)
KIND_COLUMNS = "telemetry_count, log_count, discovery_count, backup_event_count"
BATCH_COLUMNS = f"""tenant_id, device_id, digest, event_count, alert_count, byte_count, source, received_at,
         idempotency_key, {KIND_COLUMNS}"""
BATCH_VALUES = f"""tenant_id, device_id, digest, jsonb_array_length(events), jsonb_array_length(alerts), byte_count,
         source, received_at, idempotency_key, {KIND_COLUMNS}"""
GROUP_COLUMNS = """tenant_id, fingerprint, title, source_ip, destination_ip, device_id, severity, count,
         suppressed_count, first_seen_at, last_seen_at, last_alert_id, revision"""
ALERT_COLUMNS = ", ".join(
    ("group_id", "tenant_id", "device_id", "batch_id", "received_at", "suppressed_by_id", *COLUMNS)
)
SEVERITIES = f"ARRAY{Severity.values}"  # in ascending order; the list is written like SQL's
SAME_GROUP = "(known.tenant_id, known.fingerprint) = (alert.tenant_id, alert.fingerprint)"
SHOWN = "FILTER (WHERE suppressed_by_id IS NULL)"


def _folded(aggregate: str) -> str:
    """What a group is told about its alerts: suppressed ones count only if all are."""
    return f"coalesce({aggregate} {SHOWN}, {aggregate})"


def _joined(column: str, merged: str) -> str:
    """The assignment for a column that tells about the alerts of a group; `merged` if they are as suppressed as it."""
    return f"""{column} = CASE WHEN known.count > 0 AND excluded.count = 0 THEN known.{column}
                  WHEN known.count = 0 AND excluded.count > 0 THEN excluded.{column}
                  ELSE {merged} END"""


# What alerts do to the group that they join. One that was acknowledged, and silent for a day, is news again.
JOIN_GROUP = ",\n".join(
    (
        "count = known.count + excluded.count",
        "suppressed_count = known.suppressed_count + excluded.suppressed_count",
        _joined("revision", "excluded.revision"),
        _joined("last_alert_id", "excluded.last_alert_id"),
        _joined("first_seen_at", "least(known.first_seen_at, excluded.first_seen_at)"),
        _joined("last_seen_at", "greatest(known.last_seen_at, excluded.last_seen_at)"),
        _joined(
            "severity",
            f"""({SEVERITIES})[greatest(array_position({SEVERITIES}, known.severity::text),
                                        array_position({SEVERITIES}, excluded.severity::text))]""",
        ),
        f"""status = CASE WHEN known.status = 'acknowledged' AND excluded.count > 0
                           AND known.last_seen_at < excluded.last_seen_at - interval '{SILENCE_SECONDS} s'
                          THEN 'new' ELSE known.status END""",
    )
)
STORE = f"""
WITH given AS MATERIALIZED (
  SELECT batch.*, decode(hex_digest, 'hex') AS digest, tenant.id AS tenant_id,
         CASE WHEN tenant.id IS NOT NULL THEN array_remove(ARRAY[{ENABLED}], NULL) END AS enabled
    FROM jsonb_to_recordset(%s) AS batch (
      number integer, key_id bigint, device_id bigint, hex_digest text, byte_count integer,
      source inet, received_at timestamptz, idempotency_key text, modules text[], events jsonb, alerts jsonb,
      {KIND_COLUMNS.replace(",", " integer,")} integer)
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
)
{{more}}
SELECT given.enabled, fresh.id, {{alerts}}
  FROM given
  LEFT JOIN fresh USING (number)
  {{join}}
 ORDER BY number
"""  # noqa: S608
ALERTS = f"""
, waiting AS MATERIALIZED (
  SELECT tenant_id, device_id, fresh.id AS batch_id, received_at, decode(fingerprint, 'hex') AS fingerprint, ordinality,
         {", ".join(COLUMNS)}
    FROM fresh
    JOIN good USING (number)
   CROSS JOIN ROWS FROM (jsonb_to_recordset(alerts) AS (
      fingerprint text, timestamp timestamptz, title text, severity text, source_ip inet, destination_ip inet,
      description text)) WITH ORDINALITY
), turn AS MATERIALIZED (
  SELECT pg_advisory_xact_lock({ORDER_LOCK})
    FROM (SELECT count(*) FROM stored) AS events
   CROSS JOIN (SELECT count(*) FROM waiting) AS alerts
   WHERE alerts.count > 0
), ahead AS MATERIALIZED (
  SELECT CASE WHEN newest_id > (SELECT last_value FROM security_alerts_id_seq)
              THEN setval('security_alerts_id_seq', newest_id) END,
         CASE WHEN newest_revision > (SELECT last_value FROM alert_groups_revision_seq)
              THEN setval('alert_groups_revision_seq', newest_revision) END
    FROM turn
   CROSS JOIN (SELECT max(id) AS newest_id FROM security_alerts) AS alerts
   CROSS JOIN (SELECT max(revision) AS newest_revision FROM alert_groups) AS groups
), rules AS MATERIALIZED (
  SELECT id, tenant_id, title, title_match, nullif(source, '')::inet AS source,
         nullif(destination, '')::inet AS destination, device_id, ends_at,
         array_position({SEVERITIES}, worst_severity::text) AS worst
    FROM suppression_rules
   WHERE tenant_id IN (SELECT tenant_id FROM waiting) AND ends_at > (SELECT min(received_at) FROM waiting)
), suppressed AS MATERIALIZED (
  SELECT batch_id, ordinality, min(rule.id) AS suppressed_by_id
    FROM rules AS rule
    JOIN waiting AS alert USING (tenant_id)
   WHERE alert.received_at < rule.ends_at
     AND array_position({SEVERITIES}, alert.severity) <= rule.worst
     AND (rule.title = ''
          OR CASE rule.title_match WHEN 'equals' THEN alert.title = rule.title
                                   ELSE strpos(alert.title, rule.title) > 0 END)
     AND (rule.source IS NULL OR alert.source_ip <<= rule.source)
     AND (rule.destination IS NULL OR alert.destination_ip <<= rule.destination)
     AND (rule.device_id IS NULL OR alert.device_id = rule.device_id)
   GROUP BY batch_id, ordinality
), numbered AS MATERIALIZED (
  SELECT nextval('security_alerts_id_seq') AS id, alert.*
    FROM (SELECT waiting.*, suppressed_by_id
            FROM ahead
           CROSS JOIN waiting
            LEFT JOIN suppressed USING (batch_id, ordinality)
           ORDER BY batch_id, ordinality) AS alert
), folded AS MATERIALIZED (
  SELECT nextval('alert_groups_revision_seq') AS revision, alert.*,
         (SELECT id FROM alert_groups AS known WHERE {SAME_GROUP} AND known.status <> 'closed') AS known_id
    FROM (
      SELECT tenant_id, fingerprint, min(title) AS title, min(source_ip) AS source_ip,
             min(destination_ip) AS destination_ip,
             min(device_id) FILTER (WHERE source_ip IS NULL AND destination_ip IS NULL) AS device_id,
             ({SEVERITIES})[{_folded(f"max(array_position({SEVERITIES}, severity))")}] AS severity,
             count(*) {SHOWN} AS count, count(suppressed_by_id) AS suppressed_count,
             {_folded("min(received_at)")} AS first_seen_at, {_folded("max(received_at)")} AS last_seen_at,
             {_folded("max(id)")} AS last_alert_id
        FROM numbered
       GROUP BY tenant_id, fingerprint
       ORDER BY tenant_id, fingerprint) AS alert
), written AS (
  INSERT INTO alert_groups AS known (id, {GROUP_COLUMNS}, status, previous_id)
  SELECT coalesce(known_id, nextval('alert_groups_id_seq')), {GROUP_COLUMNS}, 'new',
         CASE WHEN known_id IS NULL
              THEN (SELECT max(id) FROM alert_groups AS known WHERE {SAME_GROUP} AND known.status = 'closed') END
    FROM folded AS alert
      ON CONFLICT (tenant_id, fingerprint) WHERE NOT (status = 'closed') DO UPDATE
     SET {JOIN_GROUP}
  RETURNING id, tenant_id, fingerprint, status
), placed AS MATERIALIZED (
  SELECT numbered.*, known.id AS group_id, known.status
    FROM numbered
    JOIN written AS known USING (tenant_id, fingerprint)
), inserted AS (
  INSERT INTO security_alerts (id, {ALERT_COLUMNS})
  SELECT id, {ALERT_COLUMNS} FROM placed
), alerted AS (
  SELECT batch_id, array_agg(id ORDER BY id) AS ids, array_agg(status ORDER BY id) AS statuses,
         array_agg(suppressed_by_id IS NOT NULL ORDER BY id) AS hidden
    FROM placed
   GROUP BY batch_id
)
"""  # noqa: S608
# A transaction without alerts does not pay for the tables that it does not need.
INSERT = STORE.format(more="", alerts="NULL, NULL, NULL", join="")
INSERT_WITH_ALERTS = STORE.format(
    more=ALERTS,
    alerts="alerted.ids, alerted.statuses, alerted.hidden",
    join="LEFT JOIN alerted ON batch_id = fresh.id",
)


def insert(batches: list[Batch]) -> tuple[list[Inserted], list[NewAlert]]:
    """Store the batches that are new and allowed. One statement needs no `atomic`: it is a transaction.

    Returns what was done with each, and the new alerts in id order. Raises IntegrityError if an id is taken.
    """
    rows = [_row(number, batch) for number, batch in enumerate(batches)]
    inserted: list[Inserted] = []
    alerts: list[NewAlert] = []
    connection.ensure_connection()
    # Django's own cursor would put the JSON into the text of the statement.
    with connection.wrap_database_errors, Cursor(connection.connection) as cursor:
        statement = INSERT_WITH_ALERTS if any(batch.alerts for batch in batches) else INSERT
        cursor.execute(statement, [Jsonb(rows, dumps=msgspec.json.encode)], prepare=True)
        for batch, (modules, batch_id, *of_alerts) in zip(batches, cursor.fetchall(), strict=True):
            inserted.append(Inserted(None if modules is None else set(modules), batch_id is not None))
            if batch_id and batch.alerts:
                for alert, pk, status, is_suppressed in zip(batch.alerts, *of_alerts, strict=True):
                    alert.pk, alert.group_status, alert.is_suppressed = pk, status, is_suppressed
                alerts += batch.alerts
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
        alerts=[{"fingerprint": alert.fingerprint.hex(), **alert.row} for alert in batch.alerts],
        **batch.kind_counts,
    )
