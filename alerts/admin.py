"""Staff pages for alerts, which are evidence, and for their groups, which people handle."""

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import Max, Min, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesCheckboxFilter

from alerts.models import AlertGroup, SecurityAlert, Severity, Status
from alerts.triage import set_status
from tenants.admin.bounded import BoundedAdmin, IdFilter, ReceivedFilter
from tenants.admin.display import badge, exact, related
from tenants.admin.pages import RelatedFilter

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


class GroupFilter(IdFilter):
    """The alerts of one group."""

    title = "group"
    parameter_name = "group"

    def id_range(self, rows: QuerySet, end: int) -> tuple[int, int]:
        """From the first to the last, however far back."""
        if not self.value():
            return 0, end
        ids = rows.filter(group_id=self.row_id).aggregate(first=Min("pk"), last=Max("pk"))
        return ids["first"] or 0, (ids["last"] or 0) + 1


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
        """In the words of the live page."""
        if row.source_ip and row.destination_ip:
            ends = (row.source_ip, row.destination_ip)
            return format_html('<span class="whitespace-nowrap">{} →<br>{}</span>', *ends)
        if row.source_ip:
            return f"from {row.source_ip}"
        return f"to {row.destination_ip}" if row.destination_ip else "-"


@admin.register(AlertGroup)
class AlertGroupAdmin(Described):
    """A group's status changes by an action, so that one place keeps the order of changes and the history."""

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
        "previous_link",
    )
    actions = ("acknowledge", "close", "reopen")

    def has_triage_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("alerts.change_alertgroup")

    @admin.action(description="Acknowledge", permissions=["triage"])
    def acknowledge(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._set_status(request, queryset, Status.ACKNOWLEDGED)

    @admin.action(description="Close", permissions=["triage"])
    def close(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._set_status(request, queryset, Status.CLOSED)

    @admin.action(description="Reopen", permissions=["triage"])
    def reopen(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._set_status(request, queryset, Status.NEW)

    def _set_status(self, request: HttpRequest, queryset: QuerySet, status: Status) -> None:
        changed, refused = set_status(queryset, status)
        LogEntry.objects.log_actions(cast(int, request.user.pk), changed, CHANGE, f"Status: {status.label}.")
        count = "1 group is" if len(changed) == 1 else f"{len(changed)} groups are"
        self.message_user(request, f"{count} now {status.label.lower()}.", messages.SUCCESS)
        for group in refused:
            message = f"“{group}” stays closed: its alerts have a newer group that is open. Reopen that one."
            self.message_user(request, message, messages.ERROR)

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
    )
    fields = (
        "title",
        ("severity_label", "status_label"),
        "group_link",
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
