"""Staff's pages for batches and events: read-only, and as fast with ten million rows as with ten."""

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import Truncator
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter, RangeDateTimeFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from ingest.models import IngestBatch, IngestEvent


class ReadOnlyAdmin(ModelAdmin):
    """For tables that only grow: no edits, no count of all rows, no order but newest first."""

    list_select_related = ["tenant", "device"]
    list_filter_submit = True
    paginator = InfinitePaginator
    show_full_result_count = False
    sortable_by: list[str] = []

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(IngestEvent)
class IngestEventAdmin(ReadOnlyAdmin):
    list_display = ["id", "kind_label", "tenant", "device", "summary", "timestamp", "received_at"]
    list_filter = [
        ("tenant", AutocompleteSelectFilter),
        ("device", AutocompleteSelectFilter),
        ("kind", ChoicesDropdownFilter),
        ("received_at", RangeDateTimeFilter),
    ]
    fields = ["kind_label", ("tenant", "device"), ("timestamp", "received_at"), "batch_link", "readable_data"]

    @display(description="kind", label=True)
    def kind_label(self, event: IngestEvent) -> str:
        return event.get_kind_display()

    @display(description="data")
    def summary(self, event: IngestEvent) -> str:
        return Truncator(", ".join(f"{name}: {value}" for name, value in event.data.items())).chars(90)

    @display(description="data")
    def readable_data(self, event: IngestEvent) -> str:
        text = json.dumps(event.data, indent=2, ensure_ascii=False)
        return format_html('<pre class="whitespace-pre-wrap break-all text-sm">{}</pre>', text)

    @display(description="batch")
    def batch_link(self, event: IngestEvent) -> str:
        url = reverse("admin:ingest_ingestbatch_change", args=[event.batch_id])
        return format_html('<a class="text-primary-600 dark:text-primary-500" href="{}">{}</a>', url, event.batch_id)


@admin.register(IngestBatch)
class IngestBatchAdmin(ReadOnlyAdmin):
    list_display = ["id", "tenant", "device", "event_count", "alert_count", "size", "source", "received_at"]
    list_filter = [
        ("tenant", AutocompleteSelectFilter),
        ("device", AutocompleteSelectFilter),
        ("received_at", RangeDateTimeFilter),
    ]
    fields = [
        ("tenant", "device"),
        ("event_count", "alert_count", "size"),
        ("source", "received_at"),
        "hex_digest",
        "events",
    ]

    @display(description="size")
    def size(self, batch: IngestBatch) -> str:
        return filesizeformat(batch.byte_count)

    @display(description="digest")
    def hex_digest(self, batch: IngestBatch) -> str:
        return bytes(batch.digest).hex()

    @display(description="events")
    def events(self, batch: IngestBatch) -> str:
        """A link to its events: they carry the batch's own received_at."""
        moment = batch.received_at
        query = {
            "device__id__exact": batch.device_id,
            "received_at_from_0": moment.strftime("%Y-%m-%d"),
            "received_at_from_1": moment.strftime("%H:%M:%S"),
            "received_at_to_0": moment.strftime("%Y-%m-%d"),
            "received_at_to_1": moment.strftime("%H:%M:%S.%f"),
        }
        url = f"{reverse('admin:ingest_ingestevent_changelist')}?{'&'.join(f'{k}={v}' for k, v in query.items())}"
        return format_html('<a class="text-primary-600 dark:text-primary-500" href="{}">Show its events</a>', url)
