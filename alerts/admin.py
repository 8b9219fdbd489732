"""Staff's page for alerts. What the device said can't be edited; the status can."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter, RangeDateTimeFilter
from unfold.decorators import action, display
from unfold.paginator import InfinitePaginator

from alerts.models import SecurityAlert, Severity, Status

SEVERITY_COLOURS = {
    Severity.INFO.label: "default",
    Severity.LOW.label: "info",
    Severity.MEDIUM.label: "warning",
    Severity.HIGH.label: "danger",
    Severity.CRITICAL.label: "danger",
}
STATUS_COLOURS = {Status.OPEN.label: "warning", Status.ACKNOWLEDGED.label: "info", Status.RESOLVED.label: "success"}


@admin.register(SecurityAlert)
class SecurityAlertAdmin(ModelAdmin):
    list_display = ["severity_label", "title", "tenant", "device", "route", "received_at", "status_label"]
    list_display_links = ["title"]
    list_select_related = ["tenant", "device"]
    list_filter = [
        ("severity", ChoicesDropdownFilter),
        ("status", ChoicesDropdownFilter),
        ("tenant", AutocompleteSelectFilter),
        ("device", AutocompleteSelectFilter),
        ("received_at", RangeDateTimeFilter),
    ]
    list_filter_submit = True
    # Counting, or sorting by another column, would read the whole table.
    paginator = InfinitePaginator
    show_full_result_count = False
    sortable_by: list[str] = []
    fields = [
        ("severity_label", "status"),
        "title",
        "description",
        ("tenant", "device"),
        ("source_ip", "destination_ip"),
        ("timestamp", "received_at"),
        "batch_id",
    ]
    readonly_fields = [
        "severity_label", "title", "description", "tenant", "device", "source_ip", "destination_ip", "timestamp",
        "received_at", "batch_id",
    ]  # fmt: skip
    actions = ["acknowledge", "resolve", "reopen"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj=None) -> bool:
        return False

    @display(description="severity", label=SEVERITY_COLOURS)
    def severity_label(self, alert: SecurityAlert) -> str:
        return alert.get_severity_display()

    @display(description="status", label=STATUS_COLOURS)
    def status_label(self, alert: SecurityAlert) -> str:
        return alert.get_status_display()

    @display(description="source → destination")
    def route(self, alert: SecurityAlert) -> str:
        return f"{alert.source_ip or '?'} → {alert.destination_ip or '?'}" if self._has_route(alert) else ""

    @staticmethod
    def _has_route(alert: SecurityAlert) -> bool:
        return bool(alert.source_ip or alert.destination_ip)

    @action(description="Acknowledge", permissions=["change"])
    def acknowledge(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._set_status(request, queryset, Status.ACKNOWLEDGED)

    @action(description="Resolve", permissions=["change"])
    def resolve(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._set_status(request, queryset, Status.RESOLVED)

    @action(description="Reopen", permissions=["change"])
    def reopen(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._set_status(request, queryset, Status.OPEN)

    def _set_status(self, request: HttpRequest, queryset: QuerySet, status: Status) -> None:
        count = queryset.order_by().update(status=status)
        self.message_user(request, f"{count} alert{'' if count == 1 else 's'}: {status.label.lower()}.")
