"""Batches as they were acknowledged, and the events in them."""

from django.db import models

from common.indexes import BlockIndex
from devices.models import SentByDevice


class Kind(models.TextChoices):
    TELEMETRY = "telemetry"
    LOG = "log"
    SECURITY_ALERT = "security_alert"
    DISCOVERY = "discovery"
    BACKUP_EVENT = "backup_event"


# The column of a batch that counts its events of a kind.
KIND_COUNTS = {kind: "alert_count" if kind is Kind.SECURITY_ALERT else f"{kind}_count" for kind in Kind}
NAME_LENGTH = 300  # of a batch's name: 255 characters that a device may send, and what we add


class IngestBatch(SentByDevice):
    """One acknowledged request. The device's name for the batch identifies a repeat; without a name its bytes do."""

    digest = models.BinaryField(max_length=32, help_text="SHA-256 of the inflated body.")
    event_count = models.PositiveIntegerField("events")
    alert_count = models.PositiveIntegerField("alerts")
    # Null in batches from before these columns.
    telemetry_count = models.PositiveIntegerField("telemetry", null=True)
    log_count = models.PositiveIntegerField("log", null=True)
    discovery_count = models.PositiveIntegerField("discoveries", null=True)
    backup_event_count = models.PositiveIntegerField("backup events", null=True)
    byte_count = models.PositiveIntegerField("bytes", help_text="Size of the inflated body.")
    source = models.GenericIPAddressField(null=True, help_text="The address the request came from.")
    received_at = models.DateTimeField(help_text="Our clock.")
    idempotency_key = models.CharField(
        max_length=NAME_LENGTH, null=True, help_text="The device's name for it, if it gave one."
    )

    class Meta:
        db_table = "ingest_batches"
        verbose_name = "batch"
        verbose_name_plural = "batches"
        ordering = ["-id"]
        indexes = [
            BlockIndex(fields=["received_at"], name="ingest_batches_received_at"),
            models.Index(fields=["device", "id"], name="ingest_batches_device"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["device", "digest"],
                condition=models.Q(idempotency_key__isnull=True),
                name="ingest_batches_once",
            ),
            models.UniqueConstraint(
                fields=["device", "idempotency_key"],
                condition=models.Q(idempotency_key__isnull=False),
                name="ingest_batches_idempotency_key",
            ),
        ]

    def __str__(self) -> str:
        return f"batch {self.pk}"


class RejectedBatch(SentByDevice):
    """What a device sent and we did not store, kept for a day so that staff can see why and send it again.

    The same body refused for the same reason is one row, however often it arrives.
    """

    source = models.GenericIPAddressField(null=True, help_text="The address the request came from.")
    status = models.PositiveSmallIntegerField(
        help_text="Status of the answer. 200: the other events of the batch were stored."
    )
    code = models.CharField(max_length=64)
    # Empty and not null without one: nulls are never equal, so the constraint would let a repeat be another row.
    idempotency_key = models.CharField(
        max_length=NAME_LENGTH, blank=True, default="", help_text="Its name when it is sent again."
    )
    detail = models.TextField()
    errors = models.JSONField(default=list, help_text="By index in the body.")
    digest = models.BinaryField(max_length=32, help_text="SHA-256 of the body, as far as we read it.")
    # Null unless other events of the same lenient batch were good: with these two `send_again` tells what is stored.
    batch_digest = models.BinaryField(max_length=32, null=True, help_text="SHA-256 of the whole lenient batch.")
    good_events = models.PositiveIntegerField(null=True, help_text="How many other events the lenient batch had.")
    body = models.BinaryField(help_text="Inflated if that was possible, and cut off if it is large.")
    byte_count = models.PositiveIntegerField("bytes", help_text="Size of the whole body, as far as we read it.")
    first_received_at = models.DateTimeField(help_text="Our clock.")
    received_at = models.DateTimeField("last received at", help_text="Our clock.")
    times = models.PositiveIntegerField(default=1, help_text="How often it arrived.")

    class Meta:
        db_table = "rejected_batches"
        verbose_name = "rejected batch"
        verbose_name_plural = "rejected batches"
        ordering = ["-received_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["device", "digest", "code", "idempotency_key"], name="rejected_batches_once"
            )
        ]
        indexes = [models.Index(fields=["received_at"], name="rejected_batches_received_at")]

    def __str__(self) -> str:
        return f"rejected batch {self.pk}"

    @property
    def is_whole(self) -> bool:
        return 0 < len(self.body) == self.byte_count


class RefusedKeyCount(models.Model):
    """How many requests without a valid device key came in an hour, to all processes together."""

    hour = models.DateTimeField(unique=True, help_text="When it began.")
    requests = models.PositiveBigIntegerField()

    class Meta:
        db_table = "refused_key_counts"
        ordering = ["-hour"]

    def __str__(self) -> str:
        return f"{self.requests} in the hour of {self.hour:%Y-%m-%d %H:%M}"


class RefusalCount(SentByDevice):
    """How many batches of a device were refused in a minute for the same reason."""

    pk = models.CompositePrimaryKey("minute", "device", "code")
    minute = models.DateTimeField(help_text="When it began.")
    code = models.CharField(
        max_length=64, help_text="That of the answer, but key_revoked or key_expired where the answer does not say."
    )
    requests = models.PositiveBigIntegerField()

    class Meta:
        db_table = "refusal_counts"
        indexes = [
            models.Index(fields=["device", "minute"], name="refusal_counts_device"),
            models.Index(fields=["tenant", "minute"], name="refusal_counts_tenant"),
        ]

    def __str__(self) -> str:
        return f"{self.requests} of {self.code} in the minute of {self.minute:%Y-%m-%d %H:%M}"


class LatencyCount(models.Model):
    """How many batches were stored in a minute within the same time from their last byte."""

    pk = models.CompositePrimaryKey("minute", "milliseconds")
    minute = models.DateTimeField(help_text="When it began.")
    milliseconds = models.PositiveIntegerField(help_text="The longest time that is counted here.")
    requests = models.PositiveBigIntegerField()

    class Meta:
        db_table = "latency_counts"

    def __str__(self) -> str:
        return f"{self.requests} within {self.milliseconds} ms in the minute of {self.minute:%Y-%m-%d %H:%M}"


class IngestEvent(SentByDevice):
    """One event as the device sent it.

    It has a single tree of an index besides the primary key: each costs more than all of our own work
    (docs/architecture.md has the figures). On PostgreSQL the index on the batch is a summary of its pages (BRIN).
    """

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
        indexes = [
            models.Index(fields=["tenant", "kind", "timestamp"], name="ingest_events_tenant_kind_time"),
            models.Index(fields=["batch"], name="ingest_events_batch"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"
