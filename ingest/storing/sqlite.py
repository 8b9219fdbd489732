"""Stores batches in SQLite: the batches' rows in one statement, and the events and alerts of each batch as JSON.

A statement for many rows releases the interpreter's lock once, `executemany` for each row: then the event loop takes
it, and each row waits its turn.
"""

from collections.abc import Sequence
from itertools import compress
from typing import Any

import msgspec
from django.db import connection, transaction

from alerts.new_alert import COLUMNS, NewAlert
from devices.models import DeviceKey
from ingest.batch import Batch, Inserted
from tenants.models import Module

BATCH_COLUMNS = (
    "tenant_id", "device_id", "digest", "event_count", "alert_count", "byte_count", "source", "received_at",
    "idempotency_key",
)  # fmt: skip


def _of(name: str) -> str:
    """The SQL expression for a value of the JSON; a timestamp becomes text as Django writes it."""
    value = f"json_extract(value, '$.{name}')"
    return f"rtrim(replace({value}, 'T', ' '), 'Z')" if name == "timestamp" else value


INSERT_EVENTS = f"""
INSERT INTO ingest_events (tenant_id, device_id, batch_id, received_at, kind, timestamp, data)
SELECT %s, %s, %s, %s, {_of("kind")}, {_of("timestamp")}, {_of("data")} FROM json_each(%s)
"""  # noqa: S608
INSERT_ALERTS = f"""
INSERT INTO security_alerts (tenant_id, device_id, batch_id, received_at, {", ".join(COLUMNS)})
SELECT %s, %s, %s, %s, {", ".join(map(_of, COLUMNS))} FROM json_each(%s) RETURNING id
"""  # noqa: S608


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
            common = (*_who(batch), batch_id, _received_at(batch))
            cursor.execute(INSERT_EVENTS, [*common, _json(batch.events)])
            if batch.alerts:
                cursor.execute(INSERT_ALERTS, [*common, _json([alert.row for alert in batch.alerts])])
                for alert, pk in zip(batch.alerts, sorted(pk for (pk,) in cursor.fetchall()), strict=True):
                    alert.pk = pk
    new = {id(batch) for _, batch in fresh}
    inserted = [Inserted(modules, id(batch) in new) for batch, modules in zip(batches, enabled, strict=True)]
    return inserted, [alert for _, batch in fresh for alert in batch.alerts]


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
    return *_who(batch), batch.digest, *counts, batch.source, _received_at(batch), batch.idempotency_key


def _who(batch: Batch) -> tuple[int, int]:
    return batch.key.device.tenant_id, batch.key.device_id


def _received_at(batch: Batch) -> str | None:
    return connection.ops.adapt_datetimefield_value(batch.received_at)


def _json(values: Sequence[object]) -> str:
    return msgspec.json.encode(values).decode()
