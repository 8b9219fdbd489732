"""Stores batches in SQLite: the batches' rows in one statement, and the events and alerts of each batch as JSON.

A statement for many rows releases the interpreter's lock once, `executemany` for each row: then the event loop takes
it, and each row waits its turn.
"""

from collections.abc import Sequence
from datetime import timedelta
from itertools import compress
from typing import Any

import msgspec
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from alerts.models import SILENCE_SECONDS, Severity, SuppressionRule
from alerts.new_alert import COLUMNS, NewAlert
from alerts.order import next_revisions
from alerts.suppression import suppresses
from devices.models import DeviceKey
from ingest.batch import Batch, Inserted
from tenants.models import Module

BATCH_COLUMNS = (
    "tenant_id", "device_id", "digest", "event_count", "alert_count", "byte_count", "source", "received_at",
    "idempotency_key", "telemetry_count", "log_count", "discovery_count", "backup_event_count",
)  # fmt: skip


def _of(name: str) -> str:
    """The SQL expression for a value of the JSON; a timestamp becomes text as Django writes it."""
    value = f"json_extract(value, '$.{name}')"
    return f"rtrim(replace({value}, 'T', ' '), 'Z')" if name == "timestamp" else value


INSERT_EVENTS = f"""
INSERT INTO ingest_events (tenant_id, device_id, batch_id, received_at, kind, timestamp, data)
SELECT %s, %s, %s, %s, {_of("kind")}, {_of("timestamp")}, {_of("data")} FROM json_each(%s)
"""  # noqa: S608
NUMBERED_COLUMNS = ("id", "group_id", "suppressed_by_id", *COLUMNS)
INSERT_ALERTS = f"""
INSERT INTO security_alerts (tenant_id, device_id, batch_id, received_at, {", ".join(NUMBERED_COLUMNS)})
SELECT %s, %s, %s, %s, {", ".join(map(_of, NUMBERED_COLUMNS))} FROM json_each(%s)
"""  # noqa: S608
ASCENDING = " ".join(Severity)


def _joined(column: str, merged: str) -> str:
    return f"""{column} = CASE WHEN count > 0 AND %(count)s = 0 THEN {column}
                  WHEN count = 0 AND %(count)s > 0 THEN %({column})s
                  ELSE {merged} END"""


WORST = f"""CASE WHEN instr('{ASCENDING}', severity) < instr('{ASCENDING}', %(severity)s)
                 THEN %(severity)s ELSE severity END"""
# As in postgresql.py. There is one writer, so what the update does not find is not there.
JOIN_GROUP = f"""
UPDATE alert_groups
   SET count = count + %(count)s, suppressed_count = suppressed_count + %(suppressed_count)s,
       {_joined("revision", "%(revision)s")},
       {_joined("last_alert_id", "%(last_alert_id)s")},
       {_joined("first_seen_at", "min(first_seen_at, %(first_seen_at)s)")},
       {_joined("last_seen_at", "max(last_seen_at, %(last_seen_at)s)")},
       {_joined("severity", WORST)},
       status = CASE WHEN status = 'acknowledged' AND %(count)s > 0 AND last_seen_at < %(silent_since)s
                     THEN 'new' ELSE status END
 WHERE tenant_id = %(tenant_id)s AND fingerprint = %(fingerprint)s AND NOT (status = 'closed')
RETURNING id, status
"""  # noqa: S608
BEGIN_GROUP = """
INSERT INTO alert_groups (tenant_id, fingerprint, title, source_ip, destination_ip, device_id, severity, count,
                          suppressed_count, first_seen_at, last_seen_at, last_alert_id, revision, status, previous_id)
SELECT %(tenant_id)s, %(fingerprint)s, %(title)s, %(source_ip)s, %(destination_ip)s, %(device_id)s, %(severity)s,
       %(count)s, %(suppressed_count)s, %(first_seen_at)s, %(last_seen_at)s, %(last_alert_id)s, %(revision)s, 'new',
       max(id)
  FROM alert_groups
 WHERE tenant_id = %(tenant_id)s AND fingerprint = %(fingerprint)s AND status = 'closed'
RETURNING id, status
"""
NEWEST_ALERT = "SELECT seq FROM sqlite_sequence WHERE name = 'security_alerts'"


# Each index that may refuse a row is named: any other clash is an error, never a repeat.
INSERT_BATCHES = f"""
INSERT INTO ingest_batches ({",".join(BATCH_COLUMNS)}) VALUES {{rows}}
ON CONFLICT (device_id, digest) WHERE idempotency_key IS NULL DO NOTHING
ON CONFLICT (device_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id, device_id, digest, idempotency_key
"""  # noqa: S608


@transaction.atomic
def insert(batches: list[Batch]) -> tuple[list[Inserted], list[NewAlert]]:
    """Store the batches that are new and allowed, in one transaction.

    Returns what was done with each, and the new alerts in id order.
    """
    enabled = _enabled(batches)
    given = zip(batches, enabled, strict=True)
    good = [batch for batch, modules in given if modules is not None and batch.modules <= modules and batch.events]
    fresh = _insert_batches(good) if good else []
    with connection.cursor() as cursor:
        for batch_id, batch in fresh:
            cursor.execute(INSERT_EVENTS, [*_who(batch), batch_id, _received_at(batch), _json(batch.events)])
        alerts = [alert for _, batch in fresh for alert in batch.alerts]
        rules = _suppress(alerts)
        groups = _number_and_group(cursor, alerts)
        for batch_id, batch in fresh:
            if batch.alerts:
                rows = [
                    {
                        "id": alert.pk,
                        "group_id": groups[alert.pk],
                        "suppressed_by_id": rules.get(id(alert)),
                        **alert.row,
                    }
                    for alert in batch.alerts
                ]
                cursor.execute(INSERT_ALERTS, [*_who(batch), batch_id, _received_at(batch), _json(rows)])
    new = {id(batch) for _, batch in fresh}
    inserted = [Inserted(modules, id(batch) in new) for batch, modules in zip(batches, enabled, strict=True)]
    return inserted, alerts


def _enabled(batches: list[Batch]) -> list[set[str] | None]:
    """The modules of each batch's tenant, None if its key is not usable.

    Checked again, because the first check may have used a key that this process remembered.
    """
    columns = [f"device__tenant__{module}_enabled" for module in Module]
    keys = DeviceKey.objects.usable().filter(pk__in={batch.key.pk for batch in batches})
    enabled = {pk: set(compress(Module.values, on)) for pk, *on in keys.values_list("pk", *columns)}
    return [enabled.get(batch.key.pk) for batch in batches]


def _insert_batches(batches: list[Batch]) -> list[tuple[int, Batch]]:
    by_identity = {(batch.key.device_id, batch.digest, batch.idempotency_key): batch for batch in batches}
    marks = f"({','.join(['%s'] * len(BATCH_COLUMNS))})"
    with connection.cursor() as cursor:
        cursor.execute(
            INSERT_BATCHES.format(rows=",".join([marks] * len(batches))),
            [value for batch in batches for value in _batch_row(batch)],
        )
        return [
            (batch_id, by_identity[device_id, bytes(digest), idempotency_key])
            for batch_id, device_id, digest, idempotency_key in cursor.fetchall()
        ]


def _batch_row(batch: Batch) -> tuple[Any, ...]:
    counts = len(batch.events), len(batch.alerts), batch.byte_count
    what = batch.digest, *counts, batch.source, _received_at(batch), batch.idempotency_key
    return *_who(batch), *what, *batch.kind_counts.values()


def _suppress(alerts: list[NewAlert]) -> dict[int, int]:
    """Mark those that a rule suppresses, and return the id of the oldest such rule by the `id()` of the alert."""
    if not alerts:
        return {}
    in_force = SuppressionRule.objects.in_force(min(alert.received_at for alert in alerts))
    rules = list(in_force.of_tenants(alert.tenant_id for alert in alerts).order_by("pk"))
    found = {}
    for alert in alerts if rules else []:
        of_tenant = (rule for rule in rules if rule.tenant_id == alert.tenant_id)
        if rule := next((rule for rule in of_tenant if suppresses(rule, alert)), None):
            alert.is_suppressed, found[id(alert)] = True, rule.pk
    return found


def _number_and_group(cursor: CursorWrapper, alerts: list[NewAlert]) -> dict[int, int]:
    """Give `alerts` their ids, write each of their groups once, and return the id of the group of each alert."""
    if not alerts:
        return {}
    cursor.execute(NEWEST_ALERT)
    newest = cursor.fetchone()
    folded: dict[tuple[int, bytes], list[NewAlert]] = {}
    for pk, alert in enumerate(alerts, start=1 + (newest[0] if newest else 0)):
        alert.pk = pk
        folded.setdefault((alert.tenant_id, alert.fingerprint), []).append(alert)
    groups = {}
    for (_, same), revision in zip(sorted(folded.items()), next_revisions(len(folded)), strict=True):
        values = _group_values(same, revision)
        cursor.execute(JOIN_GROUP, values)
        known = cursor.fetchall()
        if not known:
            cursor.execute(BEGIN_GROUP, values)
            known = cursor.fetchall()
        [(group_id, status)] = known
        for alert in same:
            alert.group_status = status
            groups[alert.pk] = group_id
    return groups


def _group_values(same: list[NewAlert], revision: int) -> dict[str, Any]:
    """What JOIN_GROUP and BEGIN_GROUP need to know about alerts with the same fingerprint."""
    shown = [alert for alert in same if not alert.is_suppressed]
    told = shown or same  # suppressed ones count only if all are
    times = sorted(alert.received_at for alert in told)
    last = told[-1]
    to_text = connection.ops.adapt_datetimefield_value
    return {
        "tenant_id": last.tenant_id,
        "fingerprint": last.fingerprint,
        "title": last.title,
        "source_ip": last.source_ip,
        "destination_ip": last.destination_ip,
        "device_id": None if last.source_ip or last.destination_ip else last.device_id,
        "severity": max((alert.severity for alert in told), key=Severity.values.index),
        "count": len(shown),
        "suppressed_count": len(same) - len(shown),
        "first_seen_at": to_text(times[0]),
        "last_seen_at": to_text(times[-1]),
        "silent_since": to_text(times[-1] - timedelta(seconds=SILENCE_SECONDS)),
        "last_alert_id": last.pk,
        "revision": revision,
    }


def _who(batch: Batch) -> tuple[int, int]:
    return batch.key.device.tenant_id, batch.key.device_id


def _received_at(batch: Batch) -> str | None:
    return connection.ops.adapt_datetimefield_value(batch.received_at)


def _json(values: Sequence[object]) -> str:
    return msgspec.json.encode(values).decode()
