"""Staff pages for alerts, which are evidence, and for their groups, which people handle."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import Max, Min, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesCheckboxFilter

from alerts import admin_suppression  # noqa: F401  registers its page
from alerts.models import AlertGroup, GroupChange, SecurityAlert, Severity, Status
from tenants.admin.bounded import BoundedAdmin, IdFilter, ReceivedFilter
from tenants.admin.display import badge, exact, related
from tenants.admin.pages import RelatedFilter

MAX_CHANGES = 100  # shown on the page of a group
SEVERITY_COLOURS = {
    Severity.CRITICAL: "danger",
    Severity.HIGH: "warning",
    Severity.MEDIUM: "amber",
    Severity.LOW: "info",
    Severity.INFO: None,
}
STATUS_COLOURS = {
    Status.NEW: "danger",
    Status.ACKNOWLEDGED: "warning",
    Status.IN_PROGRESS: "primary",
    Status.CLOSED: "success",
}


class IndexedFilter(IdFilter):
    """The alerts of one row, which an index finds."""

    def id_range(self, rows: QuerySet, end: int) -> tuple[int, int]:
        """From the first to the last, however far back."""
        if not self.value():
            return 0, end
        ids = rows.filter(**{f"{self.parameter_name}_id": self.row_id}).aggregate(first=Min("pk"), last=Max("pk"))
        return ids["first"] or 0, (ids["last"] or 0) + 1


class GroupFilter(IndexedFilter):
    title = "group"
    parameter_name = "group"


class SuppressedByFilter(IndexedFilter):
    title = "suppressed by"
    parameter_name = "suppressed_by"


class Described(BoundedAdmin):
    """What the lists of alerts and of groups have in common."""

    list_display_links = ("severity_label", "short_title")
    search_fields = ("title", "source_ip", "destination_ip")
    search_help_text = "Title or address"

    @admin.display(description="severity")
    def severity_label(self, row: Any) -> SafeString:
        return badge(row.severity, SEVERITY_COLOURS)

    @admin.display(description="title")
    def short_title(self, row: Any) -> SafeString:
        return format_html('<span class="narrow" title="{0}">{0}</span>', row.title)

    @admin.display(description="source → destination")
    def route(self, row: Any) -> SafeString | str:
        """In the words of the console."""
        if row.source_ip and row.destination_ip:
            ends = (row.source_ip, row.destination_ip)
            return format_html('<span class="whitespace-nowrap">{} →<br>{}</span>', *ends)
        if row.source_ip:
            return f"from {row.source_ip}"
        return f"to {row.destination_ip}" if row.destination_ip else "-"


@admin.register(AlertGroup)
class AlertGroupAdmin(Described):
    """Read-only: groups are worked on in the console, which this leads to."""

    received_field = "first_seen_at"
    list_display = ("severity_label", "status_label", "short_title", "count", "tenant_link", "where", "last_seen")
    list_filter = (
        ("severity", ChoicesCheckboxFilter),
        ("status", ChoicesCheckboxFilter),
        ("tenant", RelatedFilter),
        ("device", RelatedFilter),
        ("first_seen_at", ReceivedFilter),
    )
    fields = (
        "title",
        ("severity_label", "status_label"),
        ("tenant_link", "where"),
        ("count", "alerts"),
        ("first_seen", "last_seen"),
        ("assignee_name", "disposition"),
        "previous_link",
        "console",
        "history",
    )
    actions = None

    @admin.display(description="status")
    def status_label(self, group: AlertGroup) -> SafeString:
        return badge(group.status, STATUS_COLOURS, group.get_status_display())

    @admin.display(description="addresses or device")
    def where(self, group: AlertGroup) -> SafeString | str:
        return related(group, "device") if group.device_id else self.route(group)

    @admin.display(description="first seen")
    def first_seen(self, group: AlertGroup) -> str:
        return exact(group.first_seen_at)

    @admin.display(description="last seen")
    def last_seen(self, group: AlertGroup) -> SafeString:
        return format_html('<span class="whitespace-nowrap">{}</span>', exact(group.last_seen_at))

    @admin.display(description="group before it")
    def previous_link(self, group: AlertGroup) -> str:
        return related(group, "previous") if group.previous_id else "none"

    @admin.display(description="console")
    def console(self, group: AlertGroup) -> SafeString:
        url = reverse("console", query={"open": group.pk})
        return format_html('<a class="text-link" href="{}">Work on it in the console</a>', url)

    @admin.display(description="what people did")
    def history(self, group: AlertGroup) -> SafeString | str:
        changes = GroupChange.objects.filter(group=group.pk).order_by("-pk")[:MAX_CHANGES]
        lines = ((exact(each.at), each.user_name, each.field, each.before, each.after) for each in changes)
        return format_html_join("", "<p>{} {}: {} “{}” → “{}”</p>", lines) or "nothing"

    @admin.display(description="evidence")
    def alerts(self, group: AlertGroup) -> SafeString:
        url = reverse("admin:alerts_securityalert_changelist", query={"group": group.pk})
        return format_html('<a class="text-link" href="{}">Show the alerts of this group</a>', url)


@admin.register(SecurityAlert)
class SecurityAlertAdmin(Described):
    list_display = ("severity_label", "status_label", "short_title", "tenant_link", "device_link", "route", "received")
    list_filter = (
        ("severity", ChoicesCheckboxFilter),
        ("group__status", ChoicesCheckboxFilter),
        ("tenant", RelatedFilter),
        ("device", RelatedFilter),
        ("received_at", ReceivedFilter),
        GroupFilter,
        SuppressedByFilter,
    )
    fields = (
        "title",
        ("severity_label", "status_label"),
        ("group_link", "suppressed_by_link"),
        ("tenant_link", "device_link"),
        ("source", "destination"),
        "description",
        ("received", "device_time"),
        "batch",
    )
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).prefetch_related("group")

    @admin.display(description="status of its group")
    def status_label(self, alert: SecurityAlert) -> SafeString:
        try:
            return badge(alert.group.status, STATUS_COLOURS, alert.group.get_status_display())
        except ObjectDoesNotExist:  # the database does not check the key
            return badge("gone", {})

    @admin.display(description="group")
    def group_link(self, alert: SecurityAlert) -> SafeString:
        return related(alert, "group")

    @admin.display(description="suppressed by")
    def suppressed_by_link(self, alert: SecurityAlert) -> SafeString | str:
        return related(alert, "suppressed_by") if alert.is_suppressed else "nothing"

    @admin.display(description="source address")
    def source(self, alert: SecurityAlert) -> str | None:
        return alert.source_ip

    @admin.display(description="destination address")
    def destination(self, alert: SecurityAlert) -> str | None:
        return alert.destination_ip

    @admin.display(description="batch")
    def batch(self, alert: SecurityAlert) -> SafeString:
        url = reverse("admin:ingest_ingestbatch_change", args=[alert.batch_id])
        return format_html('<a class="text-link" href="{}">batch {}</a>', url, alert.batch_id)
