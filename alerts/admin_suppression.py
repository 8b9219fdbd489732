"""The staff page for rules that suppress alerts."""

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter

from alerts.models import SuppressionRule
from alerts.suppression import in_words
from tenants.admin.display import badge, exact, related
from tenants.admin.pages import NeverDeleted, RelatedFilter, TenantScoped


class StateFilter(RadioFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("in_force", "In force"), ("ended", "Ended")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        now = timezone.now()
        if self.value() == "in_force":
            return queryset.filter(ends_at__gt=now)
        return queryset.filter(ends_at__lte=now) if self.value() == "ended" else queryset


@admin.register(SuppressionRule)
class SuppressionRuleAdmin(NeverDeleted, TenantScoped):
    """Read-only: rules are made and ended in the console."""

    list_display = ("state_label", "conditions", "reason", "tenant_link", "created_by_name", "created", "ends")
    list_display_links = ("state_label", "conditions")
    list_filter = (("tenant", RelatedFilter), StateFilter)
    list_filter_submit = True
    search_fields = ("title", "source", "destination", "reason", "created_by_name")
    search_help_text = "Title, address, reason or who made it"
    fields = (
        "state_label",
        "conditions",
        "reason",
        "tenant_link",
        ("created_by_name", "created"),
        ("ends", "ended_by_name"),
        "alerts",
    )
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        # Not select_related: its inner join would hide rows whose device no longer exists.
        return super().get_queryset(request).prefetch_related("tenant", "device")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @admin.display(description="state")
    def state_label(self, rule: SuppressionRule) -> SafeString:
        return badge("in force" if rule.ends_at > timezone.now() else "ended", {"in force": "warning"})

    @admin.display(description="suppresses")
    def conditions(self, rule: SuppressionRule) -> str:
        return in_words(rule)

    @admin.display(description="tenant")
    def tenant_link(self, rule: SuppressionRule) -> SafeString:
        return related(rule, "tenant")

    @admin.display(description="made")
    def created(self, rule: SuppressionRule) -> str:
        return exact(rule.created_at)

    @admin.display(description="ends")
    def ends(self, rule: SuppressionRule) -> str:
        return exact(rule.ends_at)

    @admin.display(description="what it suppressed")
    def alerts(self, rule: SuppressionRule) -> SafeString:
        url = reverse("admin:alerts_securityalert_changelist", query={"suppressed_by": rule.pk})
        return format_html('<a class="text-link" href="{}">Show these alerts</a>', url)
