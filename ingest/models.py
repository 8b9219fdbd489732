"""Batches as they were acknowledged, and the events in them."""

from django.db import models

from devices.models import Device, Tenant


class Kind(models.TextChoices):
    TELEMETRY = "telemetry"
    LOG = "log"
    SECURITY_ALERT = "security_alert"
    DISCOVERY = "discovery"
    BACKUP_EVENT = "backup_event"


class IngestBatch(models.Model):
    """One acknowledged request. Its unique digest makes a repeat of the same bytes a no-op."""

    tenant = models.ForeignKey(
        Tenant, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    device = models.ForeignKey(
        Device, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    digest = models.BinaryField(max_length=32, help_text="SHA-256 of the inflated body.")
    event_count = models.PositiveIntegerField("events")
    alert_count = models.PositiveIntegerField("alerts")
    byte_count = models.PositiveIntegerField("bytes", help_text="Size of the inflated body.")
    source = models.GenericIPAddressField(null=True, help_text="The address the request came from.")
    received_at = models.DateTimeField(help_text="Our clock.")

    class Meta:
        db_table = "ingest_batches"
        verbose_name = "batch"
        verbose_name_plural = "batches"
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["device", "digest"], name="ingest_batches_once")]

    def __str__(self) -> str:
        return f"batch {self.pk}"


class IngestEvent(models.Model):
    """One event as the device sent it.

    The foreign keys are not checked by the database and there is one index beside the primary
    key: each costs more than all of our own work (docs/architecture.md has the figures).
    """

    tenant = models.ForeignKey(
        Tenant, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    device = models.ForeignKey(
        Device, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    batch = models.ForeignKey(
        IngestBatch, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    kind = models.CharField(max_length=16, choices=Kind.choices)
    timestamp = models.DateTimeField(help_text="The device's clock.")
    data = models.JSONField()
    received_at = models.DateTimeField(help_text="Our clock.")

    class Meta:
        db_table = "ingest_events"
        verbose_name = "event"
        ordering = ["-id"]
        indexes = [models.Index(fields=["tenant", "kind", "timestamp"], name="ingest_events_tenant_kind_time")]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"
