"""`manage.py rebuild_insights`."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from ingest.retention import REPEATS_REMEMBERED
from insights import usage


class Command(BaseCommand):
    help = (
        "Derive again what is derived from the stored batches and events, for example after a restore."
        " It is safe to run at any time, while batches arrive, and twice at once."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        # Of hours before that, some batches may have been deleted.
        usage.count(timezone.now() - REPEATS_REMEMBERED + usage.HOUR)
        self.stdout.write(f"Counted what was received in the last {REPEATS_REMEMBERED.days} days.")
