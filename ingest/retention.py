"""How long things are kept: `Tenant.retention_days`, or for ever."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import Max, Model, QuerySet

from alerts.models import SecurityAlert, Status
from ingest.models import IngestBatch, IngestEvent
from ingest.partitions import Partition, drop, partitions
from tenants.models import Tenant

STEP_ROWS = 5000  # rows that one transaction deletes, so that nobody waits for it
WRITABLE_AFTER_END = timedelta(days=1)  # a partition, because an event is dated when it arrives
REPEATS_REMEMBERED = timedelta(days=30)  # batches are remembered at least as long, for a device may repeat one


def drop_expired_partitions(now: datetime) -> Iterator[str]:
    """Drop the partitions of which nothing is to be kept, and give their names. Raises `partitions.TableBusy`."""
    for_ever = Tenant.objects.filter(retention_days=None).exists()
    longest = Tenant.objects.aggregate(days=Max("retention_days"))["days"]
    for partition in partitions():
        expired = longest and not for_ever and partition.end <= now - timedelta(days=longest)
        if _is_over(partition, now) and drop(partition, only_if_empty=not expired):
            yield partition.name


def _is_over(partition: Partition, now: datetime) -> bool:
    return partition.end + WRITABLE_AFTER_END <= now


def delete_expired(tenant: Tenant, now: datetime) -> dict[type[Model], int]:
    """Delete what `tenant` does not keep any longer, in small steps. Gives the number of rows by model.

    Alerts that nobody has resolved stay.
    """
    if tenant.retention_days is None:
        return {}
    kept_for = timedelta(days=tenant.retention_days)
    old = {"tenant": tenant, "received_at__lt": now - kept_for}
    old_batches = {"tenant": tenant, "received_at__lt": now - max(kept_for, REPEATS_REMEMBERED)}
    return {
        IngestEvent: _delete_events(IngestEvent.objects.filter(**old)),
        SecurityAlert: _delete_by_id(SecurityAlert.objects.filter(**old, status=Status.RESOLVED)),
        IngestBatch: _delete_by_id(IngestBatch.objects.filter(**old_batches)),
    }


def _delete_events(events: QuerySet[IngestEvent]) -> int:
    """In no order: the index begins with the tenant, and the partitions before `received_at` hold little else."""
    count = 0
    while step := list(events.order_by().values_list("received_at", "pk")[:STEP_ROWS]):
        # With the times the database looks into the partitions that it must.
        times = (min(step)[0], max(step)[0])
        IngestEvent.objects.filter(pk__in=[pk for _, pk in step], received_at__range=times).delete()
        count += len(step)
    return count


def _delete_by_id(rows: QuerySet) -> int:
    """In the order of ids, each step going on where the last one ended: what is deleted is not passed again."""
    count, last = 0, 0
    while step := list(rows.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:STEP_ROWS]):
        rows.model.objects.filter(pk__in=step).delete()
        count, last = count + len(step), step[-1]
    return count
