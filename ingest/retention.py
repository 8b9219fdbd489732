"""Deletes what has expired: rows are kept for `Tenant.retention_days`, or indefinitely if that is empty."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, Max, Model, OuterRef, Q, QuerySet

from alerts.models import AlertGroup, GroupChange, SecurityAlert, Status
from alerts.order import take_turn
from common.id_order import RECEIVED_SLACK, first_id, next_id
from ingest.models import IngestBatch, IngestEvent
from ingest.partitions import Partition, drop, partitions
from tenants.models import Tenant

STEP_ROWS = 5000  # rows that one transaction deletes: few, so that nothing waits long for it
WRITABLE_AFTER_END = timedelta(days=1)  # for a partition: events are dated on arrival, and stored later
REPEATS_REMEMBERED = timedelta(days=30)  # batches are kept at least this long, because a device may repeat one


def drop_expired_partitions(now: datetime) -> Iterator[str]:
    """Drop the partitions in which nothing must be kept, and yield their names. Raises `partitions.TableBusy`."""
    some_keep_all = Tenant.objects.filter(retention_days=None).exists()
    longest = Tenant.objects.aggregate(days=Max("retention_days"))["days"]
    for partition in partitions():
        expired = longest and not some_keep_all and partition.end <= now - timedelta(days=longest)
        if _has_ended(partition, now) and drop(partition, only_if_empty=not expired):
            yield partition.name


def _has_ended(partition: Partition, now: datetime) -> bool:
    return partition.end + WRITABLE_AFTER_END <= now


def delete_expired(tenant: Tenant, now: datetime) -> dict[type[Model], int]:
    """Delete what `tenant` no longer keeps, in small steps, and return the number of rows by model.

    The alerts of a group that is not closed stay, unless they are suppressed; a group stays as long as it has alerts,
    and everything of a tenant without `retention_days` stays.
    """
    if tenant.retention_days is None:
        return {}
    kept_for = timedelta(days=tenant.retention_days)
    oldest = now - kept_for
    is_done = Q(group__status=Status.CLOSED) | Q(suppressed_by__isnull=False)
    alerts = SecurityAlert.objects.filter(is_done, tenant=tenant)
    batches = IngestBatch.objects.filter(tenant=tenant)
    return {
        IngestEvent: _delete_events(IngestEvent.objects.filter(tenant=tenant, received_at__lt=oldest)),
        SecurityAlert: _delete_by_id(alerts, oldest),
        AlertGroup: _delete_groups(_groups_without_alerts(tenant)),
        IngestBatch: _delete_by_id(batches, min(oldest, now - REPEATS_REMEMBERED)),
    }


def _delete_events(events: QuerySet[IngestEvent]) -> int:
    """Delete in no particular order: the index begins with the tenant, and partitions that old hold little else."""
    count = 0
    while step := list(events.order_by().values_list("received_at", "pk")[:STEP_ROWS]):
        # Given the times, the database searches only the partitions that it must.
        times = (min(step)[0], max(step)[0])
        IngestEvent.objects.filter(pk__in=[pk for _, pk in step], received_at__range=times).delete()
        count += len(step)
    return count


def _groups_without_alerts(tenant: Tenant) -> QuerySet[AlertGroup]:
    """The closed and hidden groups that have none left, except the one that changed last.

    Its revision must stay known: SQLite counts on from it, and PostgreSQL checks its sequence against it.
    """
    newest = AlertGroup.objects.order_by("-revision").values("pk")[:1]
    alerts = SecurityAlert.objects.filter(group=OuterRef("pk"))
    is_done = Q(status=Status.CLOSED) | Q(count=0)
    return AlertGroup.objects.filter(is_done, ~Exists(alerts), tenant=tenant).exclude(pk__in=newest)


def _delete_groups(groups: QuerySet[AlertGroup]) -> int:
    """Delete in id order, with their histories, and only what is still found once it is our turn.

    A person may have reopened one meanwhile.
    """
    count, last = 0, 0
    while step := list(groups.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:STEP_ROWS]):
        with transaction.atomic():
            take_turn()
            expired = list(groups.filter(pk__in=step).values_list("pk", flat=True))
            GroupChange.objects.filter(group__in=expired).delete()
            count += groups.filter(pk__in=expired).delete()[0]
        last = step[-1]
    return count


def _delete_by_id(rows: QuerySet, oldest: datetime) -> int:
    """Delete in id order the rows received before `oldest`, the first moment that is kept.

    Each step begins where the last one ended, so deleted rows are not read again, and none reads on to the end of the
    table: no index leads to the old rows of one tenant.
    """
    everyones = rows.model.objects.all()
    end = first_id(everyones, "received_at", oldest + RECEIVED_SLACK, next_id(everyones))
    rows = rows.filter(received_at__lt=oldest, pk__lt=end)
    count, last = 0, 0
    while step := list(rows.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:STEP_ROWS]):
        rows.model.objects.filter(pk__in=step).delete()
        count, last = count + len(step), step[-1]
    return count
