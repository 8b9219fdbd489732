"""Security alerts: the events that need a person's attention."""

from typing import Any, Self

from django.db import models
from django.db.models.expressions import RawSQL

from alerts.models.by_tenant import OF_EACH_TENANT, reads_by_tenant
from alerts.models.groups import AlertGroup, Severity
from alerts.models.suppression import SuppressionRule
from devices.models import SentByDevice
from tenants.models import TenantOwnedQuerySet

# Suppressed ones too, for the highest id is where a reader continues.
NEWEST = OF_EACH_TENANT.format(table="security_alerts", place="id", join="", only="", order="DESC")
# An alert that can't be read, because its device was deleted, must not take the place of one that can.
NEXT = OF_EACH_TENANT.format(
    table="security_alerts",
    place="id",
    join="JOIN devices ON devices.id = device_id",
    only="AND suppressed_by_id IS NULL",
    order="ASC",
)


class SecurityAlertQuerySet(TenantOwnedQuerySet):
    def newest_id(self) -> int:
        """The highest id, 0 if there are no alerts."""
        return self.order_by("-id").values_list("id", flat=True).first() or 0

    def newest_of(self, user: Any, count: int) -> Self:
        """The newest `count` alerts that `user` may see, newest first, suppressed ones too."""
        if not reads_by_tenant(user):
            return self.for_user(user).order_by("-id")[:count]
        ids = RawSQL(NEWEST, (0, count, user.pk, count))  # noqa: S611  a constant
        return self.filter(pk__in=ids).order_by("-id")

    def next_of(self, user: Any, last_id: int, count: int) -> Self:
        """The first `count` alerts after `last_id` that `user` may see and nothing suppressed, oldest first."""
        if not reads_by_tenant(user):
            return self.for_user(user).filter(id__gt=last_id, suppressed_by=None).order_by("id")[:count]
        ids = RawSQL(NEXT, (last_id, count, user.pk, count))  # noqa: S611  a constant
        return self.filter(pk__in=ids).order_by("id")


class SecurityAlert(SentByDevice):
    """A stored security event: evidence, which nobody changes. What people do about it is in its group.

    Ids grow in commit order (see `alerts.order`), so "all after id N" has no gaps.
    """

    batch_id = models.BigIntegerField()
    timestamp = models.DateTimeField(help_text="The device's clock.")
    received_at = models.DateTimeField(help_text="Our clock.")
    title = models.TextField()
    severity = models.CharField(max_length=8, choices=Severity.choices)
    source_ip = models.GenericIPAddressField(null=True, blank=True)
    destination_ip = models.GenericIPAddressField(null=True, blank=True)
    description = models.TextField(blank=True)
    group = models.ForeignKey(
        AlertGroup, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    suppressed_by = models.ForeignKey(
        SuppressionRule,
        on_delete=models.DO_NOTHING,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
        help_text="A suppressed alert is stored and counted, and never pushed to open pages.",
    )

    objects = SecurityAlertQuerySet.as_manager()  # type: ignore[misc]  # the stubs make it an instance variable

    class Meta:
        db_table = "security_alerts"
        verbose_name = "alert"
        ordering = ["-id"]
        indexes = [
            # "This tenant, newest first" and "this tenant, after id N": the page, the socket, the admin.
            models.Index(fields=["tenant", "id"], name="security_alerts_tenant_id"),
            # The alerts of a group, newest first, and whether it has any left.
            models.Index(fields=["group", "id"], name="security_alerts_group_id"),
            # What a rule hides, newest first.
            models.Index(
                fields=["suppressed_by", "id"],
                condition=models.Q(suppressed_by__isnull=False),
                name="security_alerts_suppressed",
            ),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def group_status(self) -> str:
        return self.group.status

    @property
    def is_suppressed(self) -> bool:
        return self.suppressed_by_id is not None
