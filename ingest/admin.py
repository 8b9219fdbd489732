"""Staff pages for batches: read-only, over a table of any size."""

from django.contrib import admin
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ingest import admin_events, admin_rejected  # noqa: F401  registers their pages
from ingest.models import IngestBatch
from tenants.admin.bounded import BoundedAdmin, ReceivedFilter
from tenants.admin.pages import RelatedFilter


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
    search_fields = ("source__matches", "idempotency_key__exact")
    search_help_text = "Source address or network, or Idempotency-Key"
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
