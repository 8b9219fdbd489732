"""Security alerts: the events that need a person's attention."""

from typing import Any, Self

from django.db import connection, models
from django.db.models.expressions import RawSQL

from devices.models import SentByDevice
from tenants.models import TenantOwnedQuerySet


class Severity(models.TextChoices):
    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Status(models.TextChoices):
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


# Each tenant's alerts by the index on (tenant, id). With "tenant = …", or one condition for all tenants, PostgreSQL
# expects to meet enough of them soon, and for quiet tenants it walks the primary key through everyone else's. Pairs
# are compared and ordered because only that index has their order.
OF_EACH_TENANT = """
SELECT alert.id
  FROM memberships
 CROSS JOIN LATERAL (
    SELECT security_alerts.id
      FROM {table}
     WHERE (security_alerts.tenant_id, security_alerts.id) > (memberships.tenant_id, %s)
       AND (security_alerts.tenant_id, security_alerts.id) < (memberships.tenant_id + 1, 0)
     ORDER BY security_alerts.tenant_id {order}, security_alerts.id {order}
     LIMIT %s) AS alert
 WHERE memberships.user_id = %s
 ORDER BY alert.id {order}
 LIMIT %s
"""
NEWEST = OF_EACH_TENANT.format(table="security_alerts", order="DESC")
# An alert that can't be read, because its device was deleted, must not take the place of one that can.
NEXT = OF_EACH_TENANT.format(table="security_alerts JOIN devices ON devices.id = device_id", order="ASC")


def reads_by_tenant(user: Any) -> bool:
    """Whether OF_EACH_TENANT fits: a superuser sees all, in the order of the primary key. SQLite has no LATERAL."""
    return connection.vendor == "postgresql" and user.is_active and not user.is_superuser


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
    """A stored security event.

    Ids grow in commit order (see `alerts.new_alert`), so "all after id N" has no gaps.
    """

    batch_id = models.BigIntegerField()
    timestamp = models.DateTimeField(help_text="The device's clock.")
    received_at = models.DateTimeField(help_text="Our clock.")
    title = models.TextField()
    severity = models.CharField(max_length=8, choices=Severity.choices)
    source_ip = models.GenericIPAddressField(null=True, blank=True)
    destination_ip = models.GenericIPAddressField(null=True, blank=True)
    description = models.TextField(blank=True)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.OPEN)

    objects = SecurityAlertQuerySet.as_manager()  # type: ignore[misc]  # the stubs make it an instance variable

    class Meta:
        db_table = "security_alerts"
        verbose_name = "alert"
        ordering = ["-id"]
        # "This tenant, newest first" and "this tenant, after id N": the page, the socket, the admin.
        indexes = [models.Index(fields=["tenant", "id"], name="security_alerts_tenant_id")]

    def __str__(self) -> str:
        return self.title
