"""How batches go into SQLite: the rows of batches by one statement, those of events by another."""

from collections.abc import Iterator
from typing import Any

from django.db import connection, transaction

from alerts.models import SecurityAlert
from alerts.storage import NewAlert
from ingest.batch import Batch
from ingest.refusals import refusal_of_each

BATCH_COLUMNS = (
    "tenant_id", "device_id", "digest", "event_count", "alert_count", "byte_count", "source", "received_at",
)  # fmt: skip
EVENT_COLUMNS = ("tenant_id", "device_id", "batch_id", "kind", "timestamp", "data", "received_at")


@transaction.atomic
def insert(batches: list[Batch]) -> tuple[list[Batch], list[NewAlert]]:
    """Store those of `batches` that are new, in a transaction of its own.

    Returns the batches whose key or module is good no more, which are not stored, and the alerts that are.
    """
    refusals = refusal_of_each(batches)
    refused = [batch for batch, refusal in zip(batches, refusals, strict=True) if refusal]
    good = [batch for batch, refusal in zip(batches, refusals, strict=True) if not refusal and batch.events]
    fresh = _insert_batches(good) if good else []
    rows = [row for batch_id, batch in fresh for row in _event_rows(batch_id, batch)]
    with connection.cursor() as cursor:
        cursor.executemany(f"{_insert_into('ingest_events', EVENT_COLUMNS)} VALUES {_marks(EVENT_COLUMNS)}", rows)
    return refused, _insert_alerts(fresh)


def _insert_alerts(fresh: list[tuple[int, Batch]]) -> list[NewAlert]:
    alerts = [alert for _, batch in fresh for alert in batch.alerts]
    rows = SecurityAlert.objects.bulk_create(
        SecurityAlert(
            tenant=alert.tenant, device=alert.device, batch_id=batch_id, timestamp=alert.timestamp,
            received_at=alert.received_at, title=alert.title, severity=alert.severity, source_ip=alert.source_ip,
            destination_ip=alert.destination_ip, description=alert.description, status=alert.status,
        )
        for batch_id, batch in fresh
        for alert in batch.alerts
    )  # fmt: skip
    for alert, row in zip(alerts, rows, strict=True):
        alert.pk = row.pk
    return alerts


def _insert_into(table: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({','.join(columns)})"


def _marks(columns: tuple[str, ...]) -> str:
    return f"({','.join(['%s'] * len(columns))})"


def _insert_batches(batches: list[Batch]) -> list[tuple[int, Batch]]:
    by_identity = {batch.identity: batch for batch in batches}
    with connection.cursor() as cursor:
        cursor.execute(
            f"{_insert_into('ingest_batches', BATCH_COLUMNS)} VALUES {','.join([_marks(BATCH_COLUMNS)] * len(batches))}"
            " ON CONFLICT (device_id, digest) DO NOTHING RETURNING id, device_id, digest",
            [value for batch in batches for value in _batch_row(batch)],
        )
        return [(batch_id, by_identity[device_id, bytes(digest)]) for batch_id, device_id, digest in cursor.fetchall()]


def _batch_row(batch: Batch) -> tuple[Any, ...]:
    device = batch.key.device
    received_at = connection.ops.adapt_datetimefield_value(batch.received_at)
    return (
        device.tenant_id, device.pk, batch.digest, len(batch.events), len(batch.alerts), batch.byte_count,
        batch.source, received_at,
    )  # fmt: skip


def _event_rows(batch_id: int, batch: Batch) -> Iterator[tuple[Any, ...]]:
    device = batch.key.device
    received_at = connection.ops.adapt_datetimefield_value(batch.received_at)
    for event in batch.events:
        timestamp = str(event.timestamp.replace(tzinfo=None))  # as Django writes it, in a tenth of the time
        yield device.tenant_id, device.pk, batch_id, event.kind, timestamp, str(event.data, "utf-8"), received_at
