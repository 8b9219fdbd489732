"""Staff pages for alerts: viewing and triage."""

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesCheckboxFilter

from alerts.models import SecurityAlert, Severity, Status
from tenants.admin.bounded import BoundedAdmin, ReceivedFilter
from tenants.admin.display import badge
from tenants.admin.pages import RelatedFilter

SEVERITY_COLOURS = {
    Severity.CRITICAL: "danger",
    Severity.HIGH: "warning",
    Severity.MEDIUM: "amber",
    Severity.LOW: "info",
    Severity.INFO: None,
}
STATUS_COLOURS = {Status.OPEN: "danger", Status.ACKNOWLEDGED: "warning", Status.RESOLVED: "success"}


@admin.register(SecurityAlert)
class SecurityAlertAdmin(BoundedAdmin):
    """Only the status can be changed; the data that the device sent is read-only."""

    list_display = ("severity_label", "status_label", "short_title", "tenant_link", "device_link", "route", "received")
    list_display_links = ("severity_label", "short_title")
    list_filter = (
        ("severity", ChoicesCheckboxFilter),
        ("status", ChoicesCheckboxFilter),
        ("tenant", RelatedFilter),
        ("device", RelatedFilter),
        ("received_at", ReceivedFilter),
    )
    search_fields = ("title", "source_ip", "destination_ip")
    search_help_text = "Title or address"
    fields = (
        "status",
        ("severity_label", "title"),
        ("tenant_link", "device_link"),
        ("source", "destination"),
        "description",
        ("received", "device_time"),
        "batch",
    )
    readonly_fields = (
        "severity_label", "title", "tenant_link", "device_link", "source", "destination",
        "description", "received", "device_time", "batch",
    )  # fmt: skip
    actions = ("acknowledge", "resolve", "reopen")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("alerts.change_securityalert")

    @admin.action(description="Acknowledge", permissions=["change"])
    def acknowledge(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._set_status(request, queryset, Status.ACKNOWLEDGED)

    @admin.action(description="Resolve", permissions=["change"])
    def resolve(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._set_status(request, queryset, Status.RESOLVED)

    @admin.action(description="Reopen", permissions=["change"])
    def reopen(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._set_status(request, queryset, Status.OPEN)

    def _set_status(self, request: HttpRequest, queryset: QuerySet, status: Status) -> None:
        alerts = list(queryset.exclude(status=status))
        # By id: no member of staff has seen the alerts that arrived after these were read.
        SecurityAlert.objects.filter(pk__in=[alert.pk for alert in alerts]).update(status=status)
        LogEntry.objects.log_actions(cast(int, request.user.pk), alerts, CHANGE, f"Status: {status}.")
        count = "1 alert is" if len(alerts) == 1 else f"{len(alerts)} alerts are"
        self.message_user(request, f"{count} now {status}.", messages.SUCCESS)

    @admin.display(description="severity")
    def severity_label(self, alert: SecurityAlert) -> SafeString:
        return badge(alert.severity, SEVERITY_COLOURS)

    @admin.display(description="status")
    def status_label(self, alert: SecurityAlert) -> SafeString:
        return badge(alert.status, STATUS_COLOURS)

    @admin.display(description="title")
    def short_title(self, alert: SecurityAlert) -> SafeString:
        return format_html('<span class="narrow" title="{0}">{0}</span>', alert.title)

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

    @admin.display(description="source → destination")
    def route(self, alert: SecurityAlert) -> SafeString | str:
        """In the words of the live page."""
        if alert.source_ip and alert.destination_ip:
            ends = (alert.source_ip, alert.destination_ip)
            return format_html('<span class="whitespace-nowrap">{} →<br>{}</span>', *ends)
        if alert.source_ip:
            return f"from {alert.source_ip}"
        return f"to {alert.destination_ip}" if alert.destination_ip else "-"
