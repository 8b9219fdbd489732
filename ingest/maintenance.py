"""The daily work: partitions for the coming weeks, and the end of what is no longer kept."""

from collections.abc import Callable
from datetime import datetime

from django.utils import timezone

from alerts.searching import tidy_entries
from ingest import partitions, rejections, retention, tallies
from tenants import audit
from tenants.models import Tenant
from tenants.sessions import SessionStore

Report = Callable[[str], object]  # takes a line about what was done


def maintain(report: Report) -> None:
    """Do all of it. Safe at any time, while batches arrive, and twice at once.

    Raises `partitions.TableBusy`, once the rest is done, if long queries hold the table of events.
    """
    now = timezone.now()
    busy: partitions.TableBusy | None = None
    try:
        _make_partitions(now, report)
        _drop_partitions(now, report)
    except partitions.TableBusy as error:
        busy = error
    _delete_rows(now, report)
    tidy_entries()
    SessionStore.clear_expired()
    if busy:
        raise busy


def _make_partitions(now: datetime, report: Report) -> None:
    for name in partitions.make_ahead(now):
        report(f"Created partition {name}.")
    if partitions.in_default():
        report(
            "The default partition has events: there was no partition when they arrived. They are kept as long"
            " as others, but deleted row by row."
        )


def _drop_partitions(now: datetime, report: Report) -> None:
    for name in retention.drop_expired_partitions(now):
        report(f"Dropped partition {name}.")


def _delete_rows(now: datetime, report: Report) -> None:
    if count := rejections.delete_expired(now):
        report(f"Deleted {count:,} rejected batches.")
    if count := audit.delete_expired(now):
        report(f"Deleted {count:,} audit entries about sign-ins.")
    tallies.delete_expired(now)
    for tenant in Tenant.objects.all():
        for model, count in retention.delete_expired(tenant, now).items():
            if count:
                names = model._meta.verbose_name if count == 1 else model._meta.verbose_name_plural
                report(f"Deleted {count:,} {names} of {tenant.slug}.")
