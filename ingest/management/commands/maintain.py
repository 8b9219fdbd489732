"""`manage.py maintain`."""

from datetime import datetime
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.utils import timezone

from alerts.searching import tidy_entries
from ingest import partitions, rejections, retention
from tenants.models import Tenant


class Command(BaseCommand):
    help = (
        "Create the partitions of the coming weeks, and delete expired sessions and whatever tenants no longer keep."
        " Run it once a day. It is safe to run at any time, while batches arrive, and twice at once."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        try:
            self.make_partitions(now)
            self.drop_partitions(now)
        except partitions.TableBusy:
            self.stderr.write(f"Long queries hold {partitions.TABLE}: its partitions are left for the next run.")
        self.delete_rows(now)
        tidy_entries()
        call_command("clearsessions")

    def make_partitions(self, now: datetime) -> None:
        for name in partitions.make_ahead(now):
            self.stdout.write(f"Created partition {name}.")
        if partitions.in_default():
            self.stdout.write(
                "The default partition has events: there was no partition when they arrived. They are kept as long"
                " as others, but deleted row by row. Run `maintain` once a day."
            )

    def drop_partitions(self, now: datetime) -> None:
        for name in retention.drop_expired_partitions(now):
            self.stdout.write(f"Dropped partition {name}.")

    def delete_rows(self, now: datetime) -> None:
        if count := rejections.delete_expired(now):
            self.stdout.write(f"Deleted {count:,} rejected batches.")
        for tenant in Tenant.objects.all():
            for model, count in retention.delete_expired(tenant, now).items():
                if count:
                    names = model._meta.verbose_name if count == 1 else model._meta.verbose_name_plural
                    self.stdout.write(f"Deleted {count:,} {names} of {tenant.slug}.")
