"""Security alerts: the events that need a person's attention, and the groups in which people handle them."""

from typing import Any, Self

from django.db import connection, models
from django.db.models.expressions import RawSQL

from devices.models import Device, SentByDevice
from tenants.models import TenantOwned, TenantOwnedQuerySet

SILENCE_SECONDS = 24 * 3600  # after which the next alert makes an acknowledged group new again


class Severity(models.TextChoices):
    """In ascending order: the worst is the last."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Status(models.TextChoices):
    NEW = "new", "New"
    ACKNOWLEDGED = "acknowledged", "Acknowledged"
    IN_PROGRESS = "in_progress", "In progress"
    CLOSED = "closed", "Closed"


# Each tenant's alerts by the index on (tenant, id), or its groups by the one on (tenant, revision). With "tenant = …",
# or one condition for all tenants, PostgreSQL expects to meet enough of them soon, and for quiet tenants it walks
# another index through everyone else's. Pairs are compared and ordered because only these indexes have their order.
OF_EACH_TENANT = """
SELECT row.id
  FROM memberships
 CROSS JOIN LATERAL (
    SELECT {table}.id, {table}.{place} AS place
      FROM {table} {join}
     WHERE ({table}.tenant_id, {table}.{place}) > (memberships.tenant_id, %s)
       AND ({table}.tenant_id, {table}.{place}) < (memberships.tenant_id + 1, 0)
     ORDER BY {table}.tenant_id {order}, {table}.{place} {order}
     LIMIT %s) AS row
 WHERE memberships.user_id = %s
 ORDER BY row.place {order}
 LIMIT %s
"""
NEWEST = OF_EACH_TENANT.format(table="security_alerts", place="id", join="", order="DESC")
# An alert that can't be read, because its device was deleted, must not take the place of one that can.
NEXT = OF_EACH_TENANT.format(
    table="security_alerts", place="id", join="JOIN devices ON devices.id = device_id", order="ASC"
)
LATEST_GROUPS = OF_EACH_TENANT.format(table="alert_groups", place="revision", join="", order="DESC")


def reads_by_tenant(user: Any) -> bool:
    """Whether OF_EACH_TENANT fits: a superuser sees all, in the order of one index. SQLite has no LATERAL."""
    return connection.vendor == "postgresql" and user.is_active and not user.is_superuser


class AlertGroupQuerySet(TenantOwnedQuerySet):
    def latest_of(self, user: Any, count: int) -> Self:
        """The `count` groups that `user` may see and that changed last, the last first."""
        if not reads_by_tenant(user):
            return self.for_user(user).order_by("-revision")[:count]
        ids = RawSQL(LATEST_GROUPS, (0, count, user.pk, count))  # noqa: S611  a constant
        return self.filter(pk__in=ids).order_by("-revision")


class AlertGroup(TenantOwned):
    """The alerts that are the same to an analyst: one piece of work, however often they are repeated.

    An alert joins the group of its fingerprint that is not closed, or begins one. Each change of a group takes the next
    `revision` under ORDER_LOCK, so "all after revision N" is everything that happened since (see `alerts.order`).
    """

    fingerprint = models.BinaryField(max_length=16, help_text="See `alerts.fingerprint`.")
    title = models.TextField()
    source_ip = models.GenericIPAddressField(null=True)
    destination_ip = models.GenericIPAddressField(null=True)
    device = models.ForeignKey(
        Device,
        on_delete=models.DO_NOTHING,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
        help_text="Only if its alerts have no address.",
    )
    severity = models.CharField(max_length=8, choices=Severity.choices, help_text="The worst of its alerts.")
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.NEW)
    count = models.PositiveBigIntegerField("alerts", help_text="That arrived, including those deleted since.")
    first_seen_at = models.DateTimeField("first seen", help_text="Our clock.")
    last_seen_at = models.DateTimeField("last seen", help_text="Our clock.")
    last_alert_id = models.BigIntegerField()
    revision = models.BigIntegerField(unique=True)
    previous = models.ForeignKey(
        "self",
        on_delete=models.DO_NOTHING,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
        help_text="The group before it with the same fingerprint. It may have been deleted.",
    )

    objects = AlertGroupQuerySet.as_manager()  # type: ignore[misc]  # the stubs make it an instance variable

    class Meta:
        db_table = "alert_groups"
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "fingerprint"],
                condition=~models.Q(status=Status.CLOSED),
                name="alert_groups_one_not_closed",
            )
        ]
        indexes = [
            # "This tenant, latest change first" and "this tenant, after revision N".
            models.Index(fields=["tenant", "revision"], name="alert_groups_tenant_revision"),
            # The group before a new one. Alerts that join a group don't write to it.
            models.Index(
                fields=["tenant", "fingerprint", "id"],
                condition=models.Q(status=Status.CLOSED),
                name="alert_groups_closed",
            ),
        ]

    def __str__(self) -> str:
        return self.title


class SecurityAlertQuerySet(TenantOwnedQuerySet):
    def newest_id(self) -> int:
        """The highest id, 0 if there are no alerts."""
        return self.order_by("-id").values_list("id", flat=True).first() or 0

    def newest_of(self, user: Any, count: int) -> Self:
        """The newest `count` alerts that `user` may see, newest first."""
        if not reads_by_tenant(user):
            return self.for_user(user).order_by("-id")[:count]
        ids = RawSQL(NEWEST, (0, count, user.pk, count))  # noqa: S611  a constant
        return self.filter(pk__in=ids).order_by("-id")

    def next_of(self, user: Any, last_id: int, count: int) -> Self:
        """The first `count` alerts after `last_id` that `user` may see, oldest first."""
        if not reads_by_tenant(user):
            return self.for_user(user).filter(id__gt=last_id).order_by("id")[:count]
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
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def group_status(self) -> str:
        return self.group.status
