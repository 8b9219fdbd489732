"""What people did about groups."""

from django.conf import settings
from django.db import models

from alerts.models.groups import AlertGroup
from tenants.models import TenantOwned


class GroupChange(TenantOwned):
    """One field of one group, changed by a person. Rows are only added, and no page changes or deletes one.

    The changes of one request share its `operation`, an id that the client makes: a request whose answer was lost is
    recognized by it when it comes again.
    """

    class Field(models.TextChoices):
        STATUS = "status"
        DISPOSITION = "disposition"
        ASSIGNEE = "assignee"
        NOTE = "note"

    group = models.ForeignKey(
        AlertGroup, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    operation = models.UUIDField()
    undoes = models.UUIDField(null=True, help_text="The operation that this one undid.")
    at = models.DateTimeField(help_text="Our clock.")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    # As it was: whatever happens to the account, the history says who it was.
    user_name = models.CharField(max_length=150)
    field = models.CharField(max_length=16, choices=Field.choices)
    before = models.TextField(blank=True)
    after = models.TextField(blank=True, help_text="The new value; for a note, its text.")

    class Meta:
        db_table = "alert_group_changes"
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["operation", "group", "field"], name="alert_group_changes_once"),
        ]
        indexes = [models.Index(fields=["group", "id"], name="alert_group_changes_group")]

    def __str__(self) -> str:
        return f"{self.user_name}: {self.field}"
