"""The groups of alerts: what people work on."""

from typing import Any, Self

from django.conf import settings
from django.db import models
from django.db.models.expressions import RawSQL

from alerts.models.by_tenant import OF_EACH_TENANT, reads_by_tenant
from devices.models import Device
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


class Disposition(models.TextChoices):
    """What the alerts of a closed group turned out to be."""

    TRUE_POSITIVE = "true_positive", "True positive"
    FALSE_POSITIVE = "false_positive", "False positive"
    BENIGN = "benign", "Benign"
    DUPLICATE = "duplicate", "Duplicate"


VISIBLE = {"table": "alert_groups", "place": "revision", "join": "", "only": "AND alert_groups.count > 0"}
LATEST_GROUPS = OF_EACH_TENANT.format(**VISIBLE, order="DESC")
NEXT_GROUPS = OF_EACH_TENANT.format(**VISIBLE, order="ASC")


class AlertGroupQuerySet(TenantOwnedQuerySet):
    def visible(self) -> Self:
        """Without those whose alerts were all suppressed."""
        return self.filter(count__gt=0)

    def represented(self) -> Self:
        """With what `alerts.representation.represent_group` needs."""
        return self.select_related("tenant", "device", "previous")

    def newest_revision(self) -> int:
        """The highest revision, 0 if there are no groups."""
        return self.order_by("-revision").values_list("revision", flat=True).first() or 0

    def latest_of(self, user: Any, count: int) -> Self:
        """The `count` groups that `user` may see and that changed last, the last first."""
        if not reads_by_tenant(user):
            return self.visible().for_user(user).order_by("-revision")[:count]
        ids = RawSQL(LATEST_GROUPS, (0, count, user.pk, count))  # noqa: S611  a constant
        return self.filter(pk__in=ids).order_by("-revision")

    def next_of(self, user: Any, revision: int, count: int) -> Self:
        """The first `count` groups that `user` may see and that changed after `revision`, in that order."""
        if not reads_by_tenant(user):
            return self.visible().for_user(user).filter(revision__gt=revision).order_by("revision")[:count]
        ids = RawSQL(NEXT_GROUPS, (revision, count, user.pk, count))  # noqa: S611  a constant
        return self.filter(pk__in=ids).order_by("revision")


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
    disposition = models.CharField(
        max_length=16, choices=Disposition.choices, blank=True, db_default="", help_text="Empty unless it is closed."
    )
    status_changed_at = models.DateTimeField(null=True, help_text="By a person. Our clock.")
    status_changed_by = models.CharField(max_length=150, blank=True, db_default="", help_text="A user name.")
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    # Beside the key, because a superuser may be assigned whom the members of the tenant can't look up.
    assignee_name = models.CharField(max_length=150, blank=True, db_default="")
    version = models.PositiveIntegerField(db_default=0, help_text="How often people changed it. Alerts don't count.")
    count = models.PositiveBigIntegerField(
        "alerts", help_text="That arrived and were not suppressed, including those deleted since."
    )
    acknowledged_count = models.PositiveBigIntegerField(
        null=True, help_text="Its `count` when it was acknowledged last; of no meaning while it is new or closed."
    )
    suppressed_count = models.PositiveBigIntegerField(
        "suppressed alerts",
        db_default=0,
        help_text="That arrived and were suppressed. A group without others is hidden.",
    )
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
            # "This tenant, latest change first" and "this tenant, after revision N". However many groups a rule hides,
            # readers do not meet them.
            models.Index(
                fields=["tenant", "revision"], condition=models.Q(count__gt=0), name="alert_groups_tenant_revision"
            ),
            # The group before a new one. Alerts that join a group don't write to it.
            models.Index(
                fields=["tenant", "fingerprint", "id"],
                condition=models.Q(status=Status.CLOSED),
                name="alert_groups_closed",
            ),
            models.Index(
                fields=["assignee", "revision"],
                condition=models.Q(assignee__isnull=False),
                name="alert_groups_assignee",
            ),
        ]

    def __str__(self) -> str:
        return self.title
