"""Provisioning keys in the admin: issued by a form whose answer is the only page that shows the plaintext."""

from typing import Any

from django.contrib import admin
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from devices.admin.keys import KeyAdmin, KeyStateFilter, in_the_future, plaintext_page
from devices.models import ProvisioningKey
from tenants.admin.audit import in_words, whose_act
from tenants.admin.display import link_to
from tenants.admin.pages import RelatedFilter
from tenants.models import Verb


class ProvisioningKeyForm(ModelForm):
    def clean_expires_at(self) -> Any:
        return in_the_future(self.cleaned_data["expires_at"])


@admin.register(ProvisioningKey)
class ProvisioningKeyAdmin(KeyAdmin):
    form = ProvisioningKeyForm
    revoke_template = "admin/devices/provisioningkey/revoke.html"
    list_display = ("label", "prefix", "state_label", "tenant_link", "uses", "expires", "last_used", "created")
    list_filter = (KeyStateFilter, ("tenant", RelatedFilter))
    list_select_related = ("tenant",)
    search_fields = ("label", "prefix__startswith")
    search_help_text = "Label, or how the key starts"
    autocomplete_fields = ("tenant",)
    fields = (
        ("label", "tenant_link"),
        ("prefix", "state_label"),
        ("uses", "registered"),
        ("created", "expires"),
        ("last_used", "revoked"),
        "issued",
    )

    def get_fields(self, request: HttpRequest, obj: ProvisioningKey | None = None) -> Any:
        return self.fields if obj else (("tenant", "label"), "usage_limit", "expires_at")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Has a single button: Django's others would skip the page with the plaintext."""
        only = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, (extra_context or {}) | only)

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm, change: bool) -> None:
        """Issue a key like the commands do; `obj` is never saved. Keys can't be changed, so this is a new one."""
        key, obj.plaintext = ProvisioningKey.objects.issue(**form.cleaned_data)
        # What the page that follows asks of `obj`.
        obj.pk, obj.prefix = key.pk, key.prefix

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        template = "admin/devices/provisioningkey/issued.html"
        register_url = request.build_absolute_uri(reverse("register"))
        return plaintext_page(request, self, template, obj, obj.plaintext, register_url=register_url)

    @admin.display(description="issued by")
    def issued(self, key: ProvisioningKey) -> SafeString | str:
        return in_words(whose_act(key, Verb.PROVISIONING_KEY_ISSUED))

    @admin.display(description="tenant")
    def tenant_link(self, key: ProvisioningKey) -> SafeString:
        return link_to(key.tenant)

    @admin.display(description="used", ordering="use_count")
    def uses(self, key: ProvisioningKey) -> str:
        return f"{key.use_count} of {key.usage_limit}"

    @admin.display(description="devices")
    def registered(self, key: ProvisioningKey) -> SafeString:
        url = reverse("admin:devices_device_changelist", query={"registered_with__exact": key.pk})
        return format_html('<a class="text-link" href="{}">{} registered</a>', url, key.devices.count())
