"""`manage.py maintain`."""

from typing import Any

from django.core.management.base import BaseCommand

from ingest import partitions
from ingest.maintenance import maintain


class Command(BaseCommand):
    help = (
        "Create the partitions of the coming weeks, and delete expired sessions and whatever tenants no longer keep."
        " A server does it once a day. It is safe to run at any time, while batches arrive, and twice at once."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            maintain(self.stdout.write)
        except partitions.TableBusy as error:
            self.stderr.write(str(error))
