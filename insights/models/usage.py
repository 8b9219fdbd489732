"""How much was received, by device and by tenant, in each minute and each hour."""

from django.db import models

from devices.models import SentByDevice
from ingest.models import Kind
from tenants.models import TenantOwned

COUNTS = ("batches", "events", *Kind.values, "bytes")  # the columns that all four tables count in


class Usage(models.Model):
    """What was received in a period, by our clock. Derived from the batches: always set, never added to."""

    start = models.DateTimeField(help_text="When the period began.")
    batches = models.PositiveBigIntegerField()
    events = models.PositiveBigIntegerField()
    telemetry = models.PositiveBigIntegerField()
    log = models.PositiveBigIntegerField()
    security_alert = models.PositiveBigIntegerField("alerts")
    discovery = models.PositiveBigIntegerField("discoveries")
    backup_event = models.PositiveBigIntegerField("backup events")
    bytes = models.PositiveBigIntegerField(help_text="Of the inflated bodies.")

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.events} events in the time from {self.start:%Y-%m-%d %H:%M}"


class DeviceUsage(Usage, SentByDevice):
    """Of one device."""

    pk = models.CompositePrimaryKey("device", "start")

    class Meta(SentByDevice.Meta):
        abstract = True


class TenantUsage(Usage, TenantOwned):
    """Of all devices of a tenant."""

    pk = models.CompositePrimaryKey("tenant", "start")

    class Meta(TenantOwned.Meta):
        abstract = True


class DeviceMinute(DeviceUsage):
    class Meta:
        db_table = "device_minutes"
        indexes = [models.Index(fields=["start"], name="device_minutes_start")]


class DeviceHour(DeviceUsage):
    class Meta:
        db_table = "device_hours"
        indexes = [models.Index(fields=["start"], name="device_hours_start")]


class TenantMinute(TenantUsage):
    class Meta:
        db_table = "tenant_minutes"
        indexes = [models.Index(fields=["start"], name="tenant_minutes_start")]


class TenantHour(TenantUsage):
    class Meta:
        db_table = "tenant_hours"
        indexes = [models.Index(fields=["start"], name="tenant_hours_start")]
