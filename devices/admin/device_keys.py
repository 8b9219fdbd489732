"""Device keys in the admin: issued on their device's page; shown, rotated and revoked on their own pages."""

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget

from devices.admin.keys import STATE_COLOURS, KeyAdmin, KeyStateFilter, in_the_future, plaintext_page
from devices.models import Device, DeviceKey
from tenants.admin.audit import acts_on, in_words, who_and_where, whose_act
from tenants.admin.display import badge, link_to, page_of
from tenants.admin.pages import RelatedFilter, page
from tenants.models import Verb

# Checked by the has_…_permission methods below: given a permission's full name, unfold would look it up in the
# database, even in the system checks, which run before `migrate` has made the tables.
MAY_ISSUE = ("devices.change_device", "devices.add_devicekey")
MAY_ROTATE = ("devices.add_devicekey", "devices.change_devicekey")
MAX_OVERLAP_HOURS = 24 * 90  # hours


class IssueForm(forms.Form):
    expires_at = forms.DateTimeField(
        label="Expires (UTC)",
        required=False,
        widget=UnfoldAdminTextInputWidget({"type": "datetime-local"}),
        help_text="Leave empty for a key that is valid until it is revoked or rotated.",
    )

    def clean_expires_at(self) -> datetime | None:
        return in_the_future(self.cleaned_data["expires_at"])


class RotateForm(forms.Form):
    overlap = forms.IntegerField(
        label="Hours that the old key stays valid",
        min_value=0,
        max_value=MAX_OVERLAP_HOURS,
        initial=24,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Time to switch the device to the new key. 0 refuses the old key at once.",
    )


def issued_page(request: HttpRequest, model_admin: ModelAdmin, key: DeviceKey, plaintext: str) -> TemplateResponse:
    ingest_url = request.build_absolute_uri(reverse("ingest"))
    template = "admin/devices/devicekey/issued.html"
    return plaintext_page(request, model_admin, template, key, plaintext, ingest_url=ingest_url)


class IssuesKeys(ModelAdmin):
    """The part of a device's page that issues a key for it."""

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
        key, plaintext = DeviceKey.objects.issue(device, form.cleaned_data["expires_at"])
        return issued_page(request, self, key, plaintext)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], **kwargs: Any) -> HttpResponse:
        """Add the device's keys, each with its state as the list of keys shows it, and who issued it."""
        device = context["original"]
        keys = list(device.keys.all()) if device else []
        issued = acts_on(keys, Verb.DEVICE_KEY_ISSUED)
        context["device_keys"] = [
            (key, badge(key.state, STATE_COLOURS), who_and_where(issued.get(key.pk))) for key in keys
        ]
        return super().render_change_form(request, context, **kwargs)

    def response_add(self, request: HttpRequest, obj: Device, post_url_continue: str | None = None) -> HttpResponse:
        """A device is useless without a key, so the page that issues one comes next."""
        leads_elsewhere = {"_addanother", "_continue", "_popup"} & request.POST.keys()
        if leads_elsewhere or not self.has_issue_permission(request):
            return super().response_add(request, obj, post_url_continue)
        self.message_user(request, f"{obj} was added. It needs a device key to send events.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:devices_device_issue_key", args=[obj.pk]))


@admin.register(DeviceKey)
class DeviceKeyAdmin(KeyAdmin):
    """Keys are shown and ended here; they are issued on their device's page, which shows the plaintext."""

    tenant_lookup = "device__tenant"
    revoke_template = "admin/devices/devicekey/revoke.html"
    list_display = ("prefix", "state_label", "device_link", "tenant", "created", "expires", "last_used")
    list_filter = (KeyStateFilter, ("device", RelatedFilter), ("device__tenant", RelatedFilter))
    list_select_related = ("device__tenant",)
    search_fields = ("prefix__startswith", "device__name")
    search_help_text = "Device, or how the key starts"
    fields = (
        ("prefix", "state_label"),
        ("device_link", "tenant"),
        ("created", "expires"),
        ("last_used", "revoked"),
        "issued",
    )
    actions_detail = ("rotate", "revoke")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_rotate_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perms(MAY_ROTATE)

    @action(description="Rotate", url_path="rotate", icon="autorenew", permissions=["rotate"])
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        template = "admin/devices/devicekey/rotate.html"
        return self.end_key(request, object_id, "Rotate", RotateForm, template, self._rotate)

    def _rotate(self, request: HttpRequest, key: DeviceKey, form: forms.Form) -> HttpResponse:
        successor, plaintext = key.rotate(timedelta(hours=form.cleaned_data["overlap"]))
        return issued_page(request, self, successor, plaintext)

    @admin.display(description="issued by")
    def issued(self, key: DeviceKey) -> SafeString | str:
        return in_words(whose_act(key, Verb.DEVICE_KEY_ISSUED))

    @admin.display(description="device")
    def device_link(self, key: DeviceKey) -> SafeString:
        return link_to(key.device)

    @admin.display(description="tenant")
    def tenant(self, key: DeviceKey) -> str:
        return key.device.tenant.name
