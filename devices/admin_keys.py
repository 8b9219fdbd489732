"""Issuing, rotating and revoking device keys in the admin.

A plaintext is in the answer to the POST that made it and nowhere else: no message, no cookie, no log.
"""

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSplitDateTimeWidget

from devices.models import Device, DeviceKey


class IssueForm(forms.Form):
    expires_at = forms.SplitDateTimeField(
        required=False,
        widget=UnfoldAdminSplitDateTimeWidget,
        help_text="In UTC. Leave it empty for a key without an end.",
    )

    def clean_expires_at(self) -> datetime | None:
        moment = self.cleaned_data["expires_at"]
        if moment is not None and moment <= timezone.now():
            raise forms.ValidationError("This has passed already.")
        return moment


class RotateForm(forms.Form):
    overlap_hours = forms.IntegerField(
        initial=24,
        min_value=0,
        max_value=24 * 90,
        widget=UnfoldAdminIntegerFieldWidget,
        label="Overlap in hours",
        help_text="For so long both keys are good, so that the device can be changed over.",
    )


class RevokeForm(forms.Form):
    """Nothing to fill in: the POST is the confirmation."""


class KeyPages:
    """The pages that the mixins below share: a form to confirm, and the plaintext, once."""

    def form_page(self, request: HttpRequest, device: Device, form: forms.Form, **context: Any) -> HttpResponse:
        return self._page(request, "admin/devices/key_form.html", device, form=form, **context)

    def plaintext_page(
        self, request: HttpRequest, key: DeviceKey, plaintext: str, old: DeviceKey | None = None
    ) -> HttpResponse:
        context = {"key": key, "plaintext": plaintext, "old": old, "title": "Device key issued"}
        response = self._page(request, "admin/devices/key_issued.html", key.device, **context)
        response["Cache-Control"] = "no-store"
        return response

    def _page(self, request: HttpRequest, template: str, device: Device, **context: Any) -> TemplateResponse:
        site: Any = self.admin_site  # type: ignore[attr-defined]
        context |= site.each_context(request) | {
            "device": device,
            "device_url": device_url(device),
            "opts": Device._meta,
            "address": request.build_absolute_uri("/v1/ingest"),
        }
        return TemplateResponse(request, template, context)

    def load(self, request: HttpRequest, object_id: str) -> Any:
        """The object of the page, or 404."""
        obj = self.get_object(request, unquote(object_id))  # type: ignore[attr-defined]
        if obj is None:
            raise Http404
        return obj


def device_url(device: Device) -> str:
    return reverse("admin:devices_device_change", args=[device.pk])


class IssueKeyMixin(KeyPages):
    """Gives the device's page its "Issue key", and leads there after a device was added: without a key it is mute."""

    actions_detail = ["issue_key"]

    def has_issue_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("devices.add_devicekey")

    @action(
        description="Issue key",
        url_path="issue-key",
        permissions=["issue"],
        icon="key",
        variant=ActionVariant.PRIMARY,
    )
    def issue_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        device: Device = self.load(request, object_id)
        form = IssueForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            key, plaintext = DeviceKey.objects.issue(device, form.cleaned_data["expires_at"])
            self.log_change(request, device, f"Issued key {key}")  # type: ignore[attr-defined]
            return self.plaintext_page(request, key, plaintext)
        about = "The key is shown once, on the next page. It identifies the device to the ingest endpoint."
        return self.form_page(request, device, form, title=f"Issue a key for {device}", about=about, submit="Issue key")

    def response_add(self, request: HttpRequest, obj: Device, post_url_continue: str | None = None) -> HttpResponse:
        if "_save" in request.POST and self.has_issue_permission(request):
            return redirect("admin:devices_device_issue_key", obj.pk)
        return super().response_add(request, obj, post_url_continue)  # type: ignore[misc]


class KeyActionsMixin(KeyPages):
    """Rotating and revoking, from the key's page, its device's page, and for several keys from the list."""

    actions_detail = ["rotate", "revoke"]
    actions = ["revoke_selected"]

    @action(description="Rotate", url_path="rotate", permissions=["change"], icon="autorenew")
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key: DeviceKey = self.load(request, object_id)
        if key.state != "active":
            return self._too_late(request, key)
        form = RotateForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            successor, plaintext = key.rotate(timedelta(hours=form.cleaned_data["overlap_hours"]))
            self.log_change(request, key, f"Rotated: {successor} follows {key}")  # type: ignore[attr-defined]
            return self.plaintext_page(request, successor, plaintext, old=key)
        about = f"A new key follows {key}. It is shown once, on the next page."
        title = f"Rotate the key {key} of {key.device}"
        return self.form_page(request, key.device, form, title=title, about=about, submit="Rotate key")

    @action(description="Revoke", url_path="revoke", permissions=["change"], icon="block", variant=ActionVariant.DANGER)
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key: DeviceKey = self.load(request, object_id)
        if key.revoked_at is not None:
            return self._too_late(request, key)
        if request.method == "POST":
            self._revoke(request, key)
            messages.success(request, f"The key {key} is revoked. The very next post with it is answered 401.")
            return redirect(device_url(key.device))
        about = f"{key.device} can't send with {key} any more, from the very next post. This can't be undone."
        title = f"Revoke the key {key} of {key.device}"
        return self.form_page(
            request, key.device, RevokeForm(), title=title, about=about, submit="Revoke key", danger=True
        )

    @action(description="Revoke the selected keys", permissions=["change"])
    def revoke_selected(self, request: HttpRequest, queryset) -> None:
        keys = list(queryset.filter(revoked_at=None).select_related("device"))
        for key in keys:
            self._revoke(request, key)
        messages.success(request, f"{len(keys)} keys revoked.")

    def _revoke(self, request: HttpRequest, key: DeviceKey) -> None:
        key.revoke()
        self.log_change(request, key, f"Revoked key {key}")  # type: ignore[attr-defined]

    def _too_late(self, request: HttpRequest, key: DeviceKey) -> HttpResponse:
        messages.warning(request, f"The key {key} is {key.state} already.")
        return redirect(device_url(key.device))
