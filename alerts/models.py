"""Security alerts: the events that need a person's attention."""

from django.db import models

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


class SecurityAlertQuerySet(TenantOwnedQuerySet):
    def open(self) -> "SecurityAlertQuerySet":
        return self.filter(status=Status.OPEN)

    def newest_id(self) -> int:
        """The highest id, 0 if there are no alerts."""
        return self.order_by("-id").values_list("id", flat=True).first() or 0


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
