"""The only writer: batches go into the database here, several in one transaction."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

from django.db import connection, transaction

from alerts.models import SecurityAlert
from alerts.storage import StoredAlerts, store_alerts
from devices.authentication import InvalidDeviceKey, known_keys
from devices.models import DeviceKey, Module
from ingest.batch import Batch
from ingest.errors import ModuleDisabled
from ingest.models import IngestBatch, IngestEvent

Refusal = InvalidDeviceKey | ModuleDisabled


@dataclass(slots=True)
class Outcome:
    """What became of a group of batches: who was refused after all, and what to broadcast."""

    refused: dict[int, Refusal] = field(default_factory=dict)
    alerts: list[StoredAlerts] = field(default_factory=list)


def store_batches(batches: list[Batch]) -> Outcome:
    """Store `batches` in one transaction and return when it is on disk.

    A batch that its device has sent before is left out, and is no refusal. `refused` maps the index of a
    batch to the reason, where its key was revoked or a module switched off since it was checked.
    """
    outcome = Outcome()
    with transaction.atomic():
        welcome = _look_again(batches, outcome)
        fresh = _insert_batches(welcome)
        _insert_events(fresh)
        alerts: list[SecurityAlert] = []
        for batch_id, batch in fresh:
            for alert in batch.alerts:
                alert.batch_id = batch_id
                alert.pk = None  # a second try after a transaction that failed
                alerts.append(alert)
        outcome.alerts = store_alerts(alerts)
    return outcome


def _look_again(batches: list[Batch], outcome: Outcome) -> list[Batch]:
    """The batches whose key is still good: the look-up before may have come from a memory of the key."""
    modules = [f"device__tenant__{module}_enabled" for module in Module]
    keys = DeviceKey.objects.usable().filter(pk__in={batch.key.pk for batch in batches})
    enabled = {pk: set(compress(Module.values, on)) for pk, *on in keys.values_list("pk", *modules)}
    welcome = []
    for index, batch in enumerate(batches):
        try:
            if batch.key.pk not in enabled:
                raise InvalidDeviceKey
            batch.check_modules(enabled[batch.key.pk])
        except (InvalidDeviceKey, ModuleDisabled) as refusal:
            known_keys.clear()
            outcome.refused[index] = refusal
        else:
            welcome.append(batch)
    return welcome


BATCH_COLUMNS = (
    "tenant_id", "device_id", "digest", "event_count", "alert_count", "byte_count", "source", "received_at",
)  # fmt: skip


def _insert_batches(batches: list[Batch]) -> list[tuple[int, Batch]]:
    """Insert the batch rows and return those that are new, with their ids."""
    # A fixed order: two transactions that wait for each other's rows would be a deadlock.
    first = {(batch.key.device_id, batch.digest): batch for batch in reversed(batches) if batch.events}
    rows = [first[identity] for identity in sorted(first)]
    if not rows:
        return []
    values = [value for batch in rows for value in _batch_row(batch)]
    placeholders = ",".join(["(" + ",".join(["%s"] * len(BATCH_COLUMNS)) + ")"] * len(rows))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {IngestBatch._meta.db_table} ({','.join(BATCH_COLUMNS)}) VALUES {placeholders}"  # noqa: S608
            " ON CONFLICT (device_id, digest) DO NOTHING RETURNING id, device_id, digest",
            values,
        )
        return [(batch_id, first[device_id, bytes(digest)]) for batch_id, device_id, digest in cursor.fetchall()]


def _batch_row(batch: Batch) -> tuple[Any, ...]:
    device = batch.key.device
    received_at = connection.ops.adapt_datetimefield_value(batch.received_at)
    return (
        device.tenant_id, device.pk, batch.digest, len(batch.events), len(batch.alerts), batch.byte_count,
        batch.source, received_at,
    )  # fmt: skip


EVENT_COLUMNS = ("tenant_id", "device_id", "batch_id", "kind", "timestamp", "data", "received_at")


def _insert_events(fresh: list[tuple[int, Batch]]) -> None:
    table, columns = IngestEvent._meta.db_table, ",".join(f'"{name}"' for name in EVENT_COLUMNS)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for batch_id, batch in fresh:
                    copy.write(_copy_text(batch_id, batch))
        else:
            marks = ",".join(["%s"] * len(EVENT_COLUMNS))
            rows = [row for batch_id, batch in fresh for row in _event_rows(batch_id, batch)]
            cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)  # noqa: S608


def _copy_text(batch_id: int, batch: Batch) -> bytes:
    """The events as lines of COPY's text format, in which of JSON on one line only a backslash is special."""
    device = batch.key.device
    start, end = f"{device.tenant_id}\t{device.pk}\t{batch_id}\t", f"\t{batch.received_at.isoformat()}\n"
    lines = [f"{start}{kind}\t{timestamp.isoformat()}\t{data}{end}" for kind, timestamp, data in batch.events]
    return "".join(lines).replace("\\", "\\\\").encode()


def _event_rows(batch_id: int, batch: Batch) -> Iterator[tuple[Any, ...]]:
    device, adapt = batch.key.device, connection.ops.adapt_datetimefield_value
    received_at = adapt(batch.received_at)
    for kind, timestamp, data in batch.events:
        yield device.tenant_id, device.pk, batch_id, kind, adapt(timestamp), data, received_at
