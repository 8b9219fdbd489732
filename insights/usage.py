"""Counts what was received, by device and by tenant, in each minute and each hour.

Minutes of devices are counted from the batches, and all else from those. Every count is set to what it should be, so
that counting twice, or at the same time, does no harm, and a count that was cut off is made good by the next.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Count, Min, QuerySet, Sum
from django.db.models.functions import Coalesce, TruncHour, TruncMinute
from django.utils import timezone

from ingest.models import KIND_COUNTS, IngestBatch
from insights.models import COUNTS, DeviceHour, DeviceMinute, LastRun, TenantHour, TenantMinute, Usage

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
# How far each count goes back: a batch is dated when it arrives, and stored later. One that is stored later than this,
# because its server was stopped for so long, is found by the recount of the day.
COUNTED_AGAIN = 10 * MINUTE
RECOUNTED = 2 * DAY
FIRST_COUNT = 7 * DAY  # that is counted at first, of what was stored before; `rebuild_usage` counts all of it
KEPT: dict[type[Usage], timedelta] = {
    DeviceMinute: 3 * HOUR,
    TenantMinute: 2 * DAY,
    DeviceHour: 35 * DAY,
    TenantHour: 400 * DAY,
}
STEP_ROWS = 5000  # that one transaction deletes

OF_BATCHES = {
    "batches": Count("pk"),
    "events": Sum("event_count"),
    **{kind.value: Coalesce(Sum(column), 0) for kind, column in KIND_COUNTS.items()},
    "bytes": Sum("byte_count"),
}
OF_COUNTS = {name: Sum(name) for name in COUNTS}


def count_latest(task: str = "usage") -> None:
    """Count the last minutes, and what was missed while nobody counted. `task` is the name under which it runs."""
    now = timezone.now()
    last = LastRun.objects.filter(task=task, succeeded_at__lt=now).values_list("succeeded_at", flat=True).first()
    count((last or now - FIRST_COUNT) - COUNTED_AGAIN)


def recount_latest() -> None:
    """Count the last days again, for batches that were stored late, and delete the counts that are no longer kept."""
    count(timezone.now() - RECOUNTED)
    for model, kept_for in KEPT.items():
        delete_before(model, timezone.now() - kept_for)


def count(since: datetime) -> None:
    """Count all that was received since `since`, hour by hour; from the batches that are still there."""
    first = IngestBatch.objects.filter(received_at__gte=since).aggregate(first=Min("received_at"))["first"]
    if first is None:
        return
    for start, end in periods(max(since, first), timezone.now()):
        count_within_hour(start, end)


def periods(since: datetime, now: datetime) -> Iterator[tuple[datetime, datetime | None]]:
    """The hours from `since` until now. The first begins in the middle if its minutes are kept, and the last has no
    end: the clock of another server may be ahead.
    """
    hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    is_recent = now - hour < KEPT[DeviceMinute] - HOUR
    start = since.astimezone(UTC).replace(second=0, microsecond=0) if is_recent else hour
    while hour + HOUR <= now:
        yield start, hour + HOUR
        hour = start = hour + HOUR
    yield start, None


def count_within_hour(start: datetime, end: datetime | None) -> None:
    """Count what was received from the minute `start` until before `end`; nothing from before must be missing in its
    hour.
    """
    hour = start.replace(minute=0)
    with transaction.atomic():
        batches = _within(IngestBatch.objects, "received_at", start, end).annotate(start=TruncMinute("received_at"))
        _set(DeviceMinute, batches, OF_BATCHES, "start", "tenant_id", "device_id")
        minutes = _within(DeviceMinute.objects, "start", start, end)
        _set(TenantMinute, minutes, OF_COUNTS, "start", "tenant_id")
        minutes = _within(DeviceMinute.objects, "start", hour, end).annotate(hour=TruncHour("start"))
        _set(DeviceHour, minutes, OF_COUNTS, "hour", "tenant_id", "device_id")
        hours = _within(DeviceHour.objects, "start", hour, end)
        _set(TenantHour, hours, OF_COUNTS, "start", "tenant_id")


def _within(rows: Any, field: str, start: datetime, end: datetime | None) -> QuerySet:
    found = rows.filter(**{f"{field}__gte": start})
    return found.filter(**{f"{field}__lt": end}) if end else found


def _set(model: type[Usage], rows: QuerySet, sums: dict[str, Any], *group: str) -> None:
    """Set the rows of `model` to the `sums` of `rows` by `group`, whose first is the start of the period.

    In a fixed order, so that two that count at the same time do not wait for each other's rows in a circle; and rows
    that would stay the same are not written.
    """
    given = rows.order_by(*group[::-1]).values(*group).annotate(**{f"{name}_sum": each for name, each in sums.items()})
    statement, parameters = given.query.sql_with_params()
    owner, table = group[-1], connection.ops.quote_name(model._meta.db_table)
    known = ", ".join(f"known.{name}" for name in COUNTS)
    excluded = ", ".join(f"excluded.{name}" for name in COUNTS)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""INSERT INTO {table} AS known (start, {", ".join(group[1:])}, {", ".join(sums)}) {statement}
                    ON CONFLICT ({owner}, start)
                    DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in COUNTS)}
                 WHERE ({known}) <> ({excluded})""",
            parameters,
        )


def delete_before(model: type[Usage], start: datetime) -> None:
    """Delete the counts of the periods that began before `start`, in small steps."""
    rows = model._default_manager.filter(start__lt=start)
    while step := list(rows.order_by("start").values_list("start", flat=True)[:STEP_ROWS]):
        rows.filter(start__lte=step[-1]).delete()
