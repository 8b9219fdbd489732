"""Issuing, rotating and revoking device keys in the admin.

A plaintext is in the answer to the POST that made it and nowhere else: not in a message (a cookie), not in the
log of changes, not behind an address that can be opened again.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget

from devices.admin_tools import exact, page
from devices.models import Device, DeviceKey

# Checked by has_…_permission methods below: unfold asks the database for a permission that is given by its full
# name, already in the system checks, so before `migrate` has made the tables.
MAY_ISSUE = ("devices.change_device", "devices.add_devicekey")
MAY_REVOKE = ("devices.change_devicekey",)
MAY_ROTATE = ("devices.add_devicekey", "devices.change_devicekey")
LONGEST_OVERLAP = 24 * 90  # hours


class IssueForm(forms.Form):
    expires_at = forms.DateTimeField(
        label="Expires (UTC)",
        required=False,
        widget=UnfoldAdminTextInputWidget({"type": "datetime-local"}),
        help_text="Leave it empty for a key that is good until it is revoked or rotated.",
    )

    def clean_expires_at(self) -> datetime | None:
        expires_at = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= timezone.now():
            raise forms.ValidationError("A key that has expired already would be of no use. Choose a time to come.")
        return expires_at


class RotateForm(forms.Form):
    overlap = forms.IntegerField(
        label="Hours that the old key stays good",
        min_value=0,
        max_value=LONGEST_OVERLAP,
        initial=24,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Time to change the device over. 0 refuses the old key at once.",
    )


def until(key: DeviceKey) -> str:
    return exact(key.expires_at) if key.expires_at else "revoked or rotated"


def log_key(request: HttpRequest, key: DeviceKey, flag: int, what: str) -> None:
    """Note who did what to `key`, in its own history and in its device's, where people look."""
    user_id = cast(int, request.user.pk)  # the admin lets nobody anonymous come here
    LogEntry.objects.log_actions(user_id, [key], flag, f"{what}.", single_object=True)
    LogEntry.objects.log_actions(user_id, [key.device], CHANGE, f"Device key {key}: {what}.", single_object=True)


def revoke_key(request: HttpRequest, key: DeviceKey) -> None:
    with transaction.atomic():
        key.revoke()
        log_key(request, key, CHANGE, "Revoked")


def page_of(device: Device) -> str:
    return reverse("admin:devices_device_change", args=[device.pk])


def plaintext_page(request: HttpRequest, model_admin: ModelAdmin, key: DeviceKey, plaintext: str) -> TemplateResponse:
    """The only page that ever shows `plaintext`. No cache may keep it."""
    response = page(
        request, model_admin, "admin/devices/devicekey/issued.html",
        title="Device key issued", device=key.device, key=key, plaintext=plaintext,
        ingest_url=request.build_absolute_uri(reverse("ingest")),
    )  # fmt: skip
    response["Cache-Control"] = "no-store"
    return response


class IssuesKeys(ModelAdmin):
    """The part of a device's page that gives it a key."""

    actions_detail = ("issue_key",)

    def has_issue_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perms(MAY_ISSUE)

    @action(
        description="Issue device key",
        url_path="issue-key",
        icon="key",
        variant=ActionVariant.PRIMARY,
        permissions=["issue"],
    )
    def issue_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        device = self.get_object(request, object_id)
        if device is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        form = IssueForm(request.POST) if request.method == "POST" else IssueForm()
        if request.method != "POST" or not form.is_valid():
            return page(
                request, self, "admin/devices/devicekey/issue.html",
                title=f"Issue a device key for {device}", device=device, form=form, back_url=page_of(device),
            )  # fmt: skip
        with transaction.atomic():
            key, plaintext = DeviceKey.objects.issue(device, form.cleaned_data["expires_at"])
            log_key(request, key, ADDITION, f"Issued, good until {until(key)}")
        return plaintext_page(request, self, key, plaintext)

    def response_add(self, request: HttpRequest, obj: Device, post_url_continue: str | None = None) -> HttpResponse:
        """A device without a key is of no use, so that comes next."""
        leads_elsewhere = {"_addanother", "_continue", "_popup"} & request.POST.keys()
        if leads_elsewhere or not self.has_issue_permission(request):
            return super().response_add(request, obj, post_url_continue)
        self.message_user(request, f"{obj} was added. It needs a device key to send.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:devices_device_issue_key", args=[obj.pk]))


class ChangesKeys(ModelAdmin):
    """The parts of a key's page that end it."""

    actions_detail = ("rotate", "revoke")

    def has_rotate_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perms(MAY_ROTATE)

    def has_revoke_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perms(MAY_REVOKE)

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """There is nothing left to do to a key that is revoked or expired."""
        key = self.get_object(request, object_id)
        return super().get_actions_detail(request, object_id) if key and key.state == "active" else []

    @action(description="Rotate", url_path="rotate", icon="autorenew", permissions=["rotate"])
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._end_key(request, object_id, RotateForm, "admin/devices/devicekey/rotate.html", self._rotate)

    @action(description="Revoke", url_path="revoke", icon="block", variant=ActionVariant.DANGER, permissions=["revoke"])
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._end_key(request, object_id, forms.Form, "admin/devices/devicekey/revoke.html", self._revoke)

    def _end_key(
        self,
        request: HttpRequest,
        object_id: str,
        form_class: type[forms.Form],
        template: str,
        act: Callable[[HttpRequest, DeviceKey, forms.Form], HttpResponse],
    ) -> HttpResponse:
        """Ask on GET, act on POST. The row is locked: of two people who rotate a key, the second is told so."""
        with transaction.atomic():
            found = self.get_queryset(request).select_related(None).select_for_update()
            key = found.filter(pk=object_id).first() if object_id.isdecimal() else None
            if key is None:
                return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
            if key.state != "active":
                self.message_user(request, f"The device key {key} is {key.state} already.", messages.WARNING)
                return HttpResponseRedirect(page_of(key.device))
            form = form_class(request.POST) if request.method == "POST" else form_class()
            if request.method == "POST" and form.is_valid():
                return act(request, key, form)
        title = f"{template.rpartition('/')[2].removesuffix('.html').title()} the device key {key}"
        back_url = page_of(key.device)
        return page(request, self, template, title=title, key=key, device=key.device, form=form, back_url=back_url)

    def _rotate(self, request: HttpRequest, key: DeviceKey, form: forms.Form) -> HttpResponse:
        successor, plaintext = key.rotate(timedelta(hours=form.cleaned_data["overlap"]))
        log_key(request, key, CHANGE, f"Rotated, good until {until(key)}; its successor is {successor}")
        log_key(request, successor, ADDITION, f"Issued as the successor of {key}")
        return plaintext_page(request, self, successor, plaintext)

    def _revoke(self, request: HttpRequest, key: DeviceKey, form: forms.Form) -> HttpResponse:
        revoke_key(request, key)
        self.message_user(request, f"The device key {key} is revoked.", messages.SUCCESS)
        return HttpResponseRedirect(page_of(key.device))
