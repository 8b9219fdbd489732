"""Rules for alerts that nobody needs to see."""

from collections.abc import Iterable
from datetime import datetime
from typing import Self

from django.conf import settings
from django.db import models

from alerts.models.groups import Severity
from devices.models import Device
from tenants import audit
from tenants.models import TenantOwned, TenantOwnedQuerySet, Verb


class SuppressionRuleQuerySet(TenantOwnedQuerySet):
    def in_force(self, now: datetime) -> Self:
        return self.filter(ends_at__gt=now)

    def of_tenants(self, tenant_ids: Iterable[int]) -> Self:
        return self.filter(tenant__in=set(tenant_ids))


class SuppressionRule(TenantOwned):
    """Suppresses the alerts of a tenant that meet all of its conditions, until it ends. An empty condition is met.

    Suppressed alerts are stored and counted, but not pushed. There are no regular expressions: nobody can read one
    and know what it hides. `alerts.suppression` has the exact conditions.
    """

    class Match(models.TextChoices):
        EQUALS = "equals"
        CONTAINS = "contains"

    title = models.TextField(blank=True, help_text="Empty: any title.")
    title_match = models.CharField(max_length=8, choices=Match.choices, default=Match.EQUALS)
    source = models.CharField(max_length=43, blank=True, help_text="An address or a network; empty: any.")
    destination = models.CharField(max_length=43, blank=True, help_text="An address or a network; empty: any.")
    device = models.ForeignKey(
        Device, on_delete=models.DO_NOTHING, null=True, db_constraint=False, db_index=False, related_name="+"
    )
    worst_severity = models.CharField(
        max_length=8, choices=Severity.choices, help_text="Worse alerts are never suppressed."
    )
    reason = models.TextField()
    created_at = models.DateTimeField(help_text="Our clock.")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    created_by_name = models.CharField(max_length=150)
    ends_at = models.DateTimeField(help_text="Our clock. At most 30 days after it was made.")
    ended_by_name = models.CharField(max_length=150, blank=True, db_default="", help_text="Who ended it early.")

    objects = SuppressionRuleQuerySet.as_manager()  # type: ignore[misc]  # the stubs make it an instance variable

    class Meta:
        db_table = "suppression_rules"
        ordering = ["-id"]
        # The rules that may apply to an alert: those of its tenant that have not ended.
        indexes = [models.Index(fields=["tenant", "ends_at"], name="suppression_rules_tenant_end")]

    def __str__(self) -> str:
        return self.reason

    @property
    def is_contained(self) -> bool:
        """Whether a title need only contain the one of the rule."""
        return self.title_match == self.Match.CONTAINS


audit.Watch(
    SuppressionRule,
    added=Verb.SUPPRESSION_RULE_MADE,
    changed={},
    details=["title", "title_match", "source", "destination", "device", "worst_severity", "reason", "ends_at"],
)
