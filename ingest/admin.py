"""Staff pages for batches and events: read-only, over tables of any size."""

import json
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast, Left
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesCheckboxFilter

from common.id_order import first_id
from ingest import admin_rejected  # noqa: F401  registers its pages
from ingest.models import IngestBatch, IngestEvent, Kind
from tenants.admin.bounded import BoundedAdmin, IdFilter, ReceivedFilter
from tenants.admin.display import badge, related
from tenants.admin.pages import RelatedFilter

SUMMARY_LENGTH = 160
NEARBY_IDS = 100_000  # ids: room for about thirty writers with 3,000 events each
KIND_COLOURS = {
    Kind.TELEMETRY: "info",
    Kind.LOG: None,
    Kind.SECURITY_ALERT: "danger",
    Kind.DISCOVERY: "primary",
    Kind.BACKUP_EVENT: "success",
}


class BatchFilter(IdFilter):
    """The events of one batch. No index leads from a batch to its events, but their ids are close together."""

    title = "batch"
    parameter_name = "batch"

    def id_range(self, rows: QuerySet, end: int) -> tuple[int, int]:
        """Batches written at the same time share a range of ids."""
        if not self.value():
            return 0, end
        found = first_id(rows, "batch_id", self.row_id, end)
        return found - NEARBY_IDS, found + NEARBY_IDS


@admin.register(IngestEvent)
class IngestEventAdmin(BoundedAdmin):
    list_display = ("event_id", "kind_label", "tenant_link", "device_link", "summary", "received")
    list_filter = (
        ("kind", ChoicesCheckboxFilter),
        ("tenant", RelatedFilter),
        ("device", RelatedFilter),
        ("received_at", ReceivedFilter),
        BatchFilter,
    )
    fields = (
        ("event_id", "kind_label"),
        ("tenant_link", "device_link"),
        ("received", "device_time"),
        "batch_link",
        "pretty_data",
    )
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """A list reads and shows only the start of `data`: one event may be megabytes."""
        start = Left(Cast("data", TextField()), SUMMARY_LENGTH)
        return super().get_queryset(request).defer("data").annotate(data_start=start)

    @admin.display(description="event")
    def event_id(self, event: IngestEvent) -> str:
        return f"#{event.pk}"

    @admin.display(description="kind")
    def kind_label(self, event: IngestEvent) -> SafeString:
        return badge(event.kind, KIND_COLOURS, event.get_kind_display())

    @admin.display(description="data")
    def summary(self, event: Any) -> SafeString:
        start = " ".join(event.data_start.split())
        return format_html('<span class="code one-line">{}</span>', start)

    @admin.display(description="data")
    def pretty_data(self, event: IngestEvent) -> SafeString:
        text = json.dumps(event.data, indent=2, ensure_ascii=False)
        return format_html('<pre class="code">{}</pre>', text)

    @admin.display(description="batch")
    def batch_link(self, event: IngestEvent) -> SafeString:
        return related(event, "batch")


@admin.register(IngestBatch)
class IngestBatchAdmin(BoundedAdmin):
    list_display = (
        "batch_number",
        "tenant_link",
        "device_link",
        "event_count",
        "alert_count",
        "size",
        "source",
        "received",
    )
    list_filter = (
        ("tenant", RelatedFilter),
        ("device", RelatedFilter),
        ("received_at", ReceivedFilter),
    )
    fields = (
        ("batch_number", "received"),
        ("tenant_link", "device_link"),
        ("event_count", "alert_count"),
        ("size", "source"),
        "events",
        "digest_hex",
        "idempotency_key",
    )
    actions = None

    @admin.display(description="batch")
    def batch_number(self, batch: IngestBatch) -> str:
        return f"#{batch.pk}"

    @admin.display(description="size")
    def size(self, batch: IngestBatch) -> str:
        return filesizeformat(batch.byte_count)

    @admin.display(description="SHA-256 of the inflated body")
    def digest_hex(self, batch: IngestBatch) -> SafeString:
        return format_html('<span class="code">{}</span>', bytes(batch.digest).hex())

    @admin.display(description="contents")
    def events(self, batch: IngestBatch) -> SafeString:
        url = reverse("admin:ingest_ingestevent_changelist", query={"batch": batch.pk})
        return format_html('<a class="text-link" href="{}">Show the events of this batch</a>', url)
