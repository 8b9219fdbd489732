"""A list of the admin that is made into files, and what was made so far."""

from datetime import timedelta
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.utils import timezone

KEPT = timedelta(days=1)


class Format(models.TextChoices):
    CSV = "csv", "CSV"
    JSON_LINES = "jsonl", "JSON lines"


class ListExportQuerySet(models.QuerySet):
    def for_user(self, user: Any) -> Self:
        """Those of `user`; all for a superuser."""
        return self if user.is_superuser else self.filter(user=user)


class ListExport(models.Model):
    """What a user asked for, and how far it is.

    It is read in steps. Each goes on at `place`, where the one before ended, so a step that is cut off is done again.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    model = models.CharField("list", max_length=100, help_text="A model, such as ingest.ingestevent.")
    query = models.TextField(blank=True, help_text="The filters and the search, as in the address of the list.")
    format = models.CharField(max_length=8, choices=Format.choices, default=Format.CSV)
    # Null for a superuser, who sees all. If the user's memberships change, the export is of no use any more.
    tenants = models.JSONField(null=True, help_text="The ids of the tenants that the user was a member of.")
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True, help_text="Why it ended before its last row.")
    failures = models.PositiveSmallIntegerField(default=0, help_text="Steps in a row that failed.")
    stepped_at = models.DateTimeField(null=True)
    steps = models.PositiveIntegerField(default=0)
    place = models.CharField(blank=True, max_length=200, help_text="Where the next step begins. Empty: at the top.")
    done = models.FloatField(null=True, help_text="The part of the list that was read, from 0 to 1, if that is known.")
    rows = models.PositiveIntegerField(default=0)
    bytes = models.PositiveBigIntegerField(default=0)
    files = models.PositiveIntegerField(default=0)
    counts = models.JSONField(default=dict, help_text="Rows by the id of their tenant.")

    objects = ListExportQuerySet.as_manager()

    class Meta:
        db_table = "list_exports"
        verbose_name = "export"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["created_at"], name="list_exports_created_at"),
            models.Index(fields=["user", "id"], name="list_exports_user"),
        ]

    def __str__(self) -> str:
        return f"export #{self.pk}"

    @property
    def is_running(self) -> bool:
        return self.finished_at is None

    @property
    def state(self) -> str:
        if self.is_running:
            return "running" if self.steps else "waiting"
        return "incomplete" if self.error else "finished"

    @property
    def expires_at(self) -> Any:
        return self.created_at + KEPT


class ListExportPart(models.Model):
    """What one step read, in one of the files."""

    export = models.ForeignKey(ListExport, models.CASCADE, related_name="parts", db_index=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", db_index=False)
    step = models.PositiveIntegerField()
    file = models.PositiveIntegerField(help_text="Counted from 1.")
    content = models.BinaryField()

    class Meta:
        db_table = "list_export_parts"
        constraints = [models.UniqueConstraint(fields=["export", "step"], name="list_export_parts_once")]

    def __str__(self) -> str:
        return f"step {self.step} of export #{self.export_id}"
