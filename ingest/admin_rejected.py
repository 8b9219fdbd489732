"""Staff pages for rejected batches: why each was refused, and how to send it again after a fix."""

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.db.models.functions import Length
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from rest_framework.exceptions import APIException
from unfold.contrib.filters.admin import AllValuesCheckboxFilter
from unfold.decorators import action
from unfold.enums import ActionVariant

from ingest.models import RejectedBatch
from ingest.rejections import oldest_kept, send_again
from tenants import audit
from tenants.admin.display import badge, exact
from tenants.admin.pages import RelatedFilter, SentByDevices, page
from tenants.models import Verb

SHOWN_CHARACTERS = 20_000  # of a body
ERRORS_SHOWN = 20
LIST_PAGE = "admin:ingest_rejectedbatch_changelist"


@admin.register(RejectedBatch)
class RejectedBatchAdmin(SentByDevices):
    list_display = ("received", "tenant_link", "device_link", "reason", "detail", "times", "size")
    list_filter = (
        ("code", AllValuesCheckboxFilter),
        ("tenant", RelatedFilter),
        ("device", RelatedFilter),
    )
    list_filter_submit = True
    list_per_page = 50
    search_fields = ("code", "detail", "source__matches", "idempotency_key__exact")
    search_help_text = "Reason, detail or source address"
    fields = (
        ("reason", "detail"),
        ("tenant_link", "device_link"),
        ("received", "first_received"),
        ("times", "source"),
        ("size", "idempotency_key"),
        "named_errors",
        "text",
    )
    actions_detail = ("send_again", "download")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """A list reads no body: one may be megabytes."""
        kept = super().get_queryset(request).filter(received_at__gte=oldest_kept(timezone.now()))
        return kept.defer("body", "errors").annotate(kept_bytes=Length("body"))

    def has_view_permission(self, request: HttpRequest, obj: RejectedBatch | None = None) -> bool:
        return request.user.has_perm("ingest.view_rejectedbatch") or self.has_send_permission(request)

    def has_send_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("ingest.change_rejectedbatch")

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        rejected = self.get_object(request, object_id)
        actions = super().get_actions_detail(request, object_id)
        if rejected is None or not rejected.body:
            return []
        return actions if rejected.is_whole else [item for item in actions if "send_again" not in item.action_name]

    @action(
        description="Send it again",
        url_path="send-again",
        icon="send",
        variant=ActionVariant.PRIMARY,
        permissions=["send"],
    )
    def send_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        rejected = self.get_object(request, object_id)
        if rejected is None or not rejected.is_whole:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        here = reverse("admin:ingest_rejectedbatch_change", args=[object_id])
        if request.method != "POST":
            template = "admin/ingest/rejectedbatch/send_again.html"
            title = f"Send the {rejected} again"
            return page(request, self, template, title=title, rejected=rejected, form=forms.Form(), back_url=here)
        try:
            count = send_again(rejected)
        except APIException as refusal:
            self.message_user(request, f"It is still refused: {refusal.detail}", messages.ERROR)
            return HttpResponseRedirect(here)
        device = rejected.device  # it has a key, so it exists
        self.message_user(request, f"Stored: {count} event{'' if count == 1 else 's'} of {device}.", messages.SUCCESS)
        return HttpResponseRedirect(reverse(LIST_PAGE))

    @action(description="Download the body", url_path="body", icon="download", permissions=["view"])
    def download(self, request: HttpRequest, object_id: str) -> HttpResponse:
        rejected = self.get_object(request, object_id)
        if rejected is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        audit.record(Verb.REJECTED_BATCH_DOWNLOADED, rejected)
        name = f"rejected-{rejected.pk}.bin"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return HttpResponse(bytes(rejected.body), content_type="application/octet-stream", headers=headers)

    @admin.display(description="reason", ordering="code")
    def reason(self, rejected: RejectedBatch) -> SafeString:
        return badge(rejected.code, {rejected.code: "warning" if rejected.status == 200 else "danger"})

    @admin.display(description="first received")
    def first_received(self, rejected: RejectedBatch) -> str:
        return exact(rejected.first_received_at)

    @admin.display(description="size", ordering="byte_count")
    def size(self, rejected: Any) -> str:
        size = filesizeformat(rejected.byte_count)
        is_cut = 0 < rejected.kept_bytes < rejected.byte_count
        return f"{size}, of which {rejected.kept_bytes} bytes are kept" if is_cut else size

    @admin.display(description="errors")
    def named_errors(self, rejected: RejectedBatch) -> SafeString | str:
        lines = [
            (error["index"], error["field"] or "the event", error["detail"]) for error in rejected.errors[:ERRORS_SHOWN]
        ]
        if not lines:
            return "-"
        listed = format_html_join("", '<li>event {}, <span class="code">{}</span>: {}</li>', lines)
        more = len(rejected.errors) - len(lines)
        return format_html("<ul>{}</ul>{}", listed, f"and {more} more" if more > 0 else "")

    @admin.display(description="body")
    def text(self, rejected: RejectedBatch) -> SafeString | str:
        if not rejected.body:
            return "The body was not read."
        return format_html('<pre class="code">{}</pre>', readable(bytes(rejected.body)))


def readable(body: bytes) -> str:
    """`body` as text: indented if it is JSON, unchanged if its fault is that it is not."""
    text = body.decode(errors="replace")
    try:
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        pass
    text = text.encode(errors="replace").decode()  # a lone surrogate can't be shown
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
