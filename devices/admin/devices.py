"""Staff pages for devices.

A device is never deleted: events, batches and alerts carry its id, which the database does not check, and would be left
without an owner. To retire a device, revoke its keys.
"""

from typing import Any

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Count, Q, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.template.defaultfilters import pluralize
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import AllValuesCheckboxFilter, RadioFilter

from devices.admin.device_keys import IssuesKeys
from devices.admin.importing import ImportsDevices
from devices.keys import usable_at
from devices.models import ONLINE_WITHIN, Device
from tenants.admin.audit import in_words, whose_act
from tenants.admin.display import ago, badge, exact, link_to
from tenants.admin.pages import NeverDeleted, RelatedFilter, TenantScoped
from tenants.models import Verb

ONLINE_COLOURS = {"online": "success", "offline": None, "never seen": "warning"}


class OnlineFilter(RadioFilter):
    title = "online"
    parameter_name = "online"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        return [("yes", "Online"), ("no", "Offline"), ("never", "Never seen")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        limit = timezone.now() - ONLINE_WITHIN
        wanted = {
            "yes": Q(last_seen_at__gt=limit),
            "no": Q(last_seen_at__lte=limit),
            "never": Q(last_seen_at=None),
        }
        return queryset.filter(wanted.get(self.value(), Q()))


class DeviceForm(ModelForm):
    def validate_unique(self) -> None:
        """Check the name in the tenant: Django does not if the form has no tenant field, as for an existing device."""
        super().validate_unique()
        if "tenant" not in self.fields:
            try:
                self.instance.validate_constraints()
            except ValidationError as error:
                self.add_error(None, error)


@admin.register(Device)
class DeviceAdmin(ImportsDevices, IssuesKeys, NeverDeleted, TenantScoped):
    form = DeviceForm
    ordering = ("tenant__slug", "name")  # the query that counts keys drops the model's ordering
    list_display = ("name", "tenant", "online", "last_seen", "type", "location", "active_keys")
    list_filter = (("tenant", RelatedFilter), OnlineFilter, ("type", AllValuesCheckboxFilter))
    list_filter_submit = True
    list_select_related = ("tenant",)
    list_per_page = 50
    search_fields = ("name", "type", "location")
    search_help_text = "Name, type or location"
    autocomplete_fields = ("tenant",)
    fields = (
        ("tenant", "name"),
        ("type", "location"),
        ("events_per_second", "burst"),
        ("online", "last_seen"),
        ("created", "registered"),
        "added",
        "events",
    )
    readonly_fields = ("online", "last_seen", "created", "registered", "added", "events")
    change_form_outer_after_template = "admin/devices/device/keys.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        usable = usable_at(timezone.now(), "keys__")
        return super().get_queryset(request).annotate(active_keys=Count("keys", filter=usable))

    def get_fields(self, request: HttpRequest, obj: Device | None = None) -> Any:
        return self.fields if obj else self.fields[:3]

    def get_readonly_fields(self, request: HttpRequest, obj: Device | None = None) -> tuple[str, ...]:
        """A device stays with its tenant: the events it has sent are that tenant's."""
        return (*self.readonly_fields, "tenant") if obj else self.readonly_fields

    @admin.display(description="state", ordering="last_seen_at")
    def online(self, device: Device) -> SafeString:
        if device.last_seen_at is None:
            return badge("never seen", ONLINE_COLOURS)
        return badge("online" if device.is_online else "offline", ONLINE_COLOURS)

    @admin.display(description="last seen", ordering="last_seen_at")
    def last_seen(self, device: Device) -> str:
        return ago(device.last_seen_at)

    @admin.display(description="added")
    def created(self, device: Device) -> str:
        return exact(device.created_at)

    @admin.display(description="added by")
    def added(self, device: Device) -> SafeString | str:
        return in_words(whose_act(device, Verb.DEVICE_CREATED, Verb.DEVICE_REGISTERED))

    @admin.display(description="what it sent")
    def events(self, device: Device) -> SafeString:
        url = reverse("admin:ingest_ingestevent_changelist", query={"device__id__exact": device.pk})
        return format_html('<a class="text-link" href="{}">Show the events of this device</a>', url)

    @admin.display(description="active keys", ordering="active_keys")
    def active_keys(self, device: Any) -> int:
        return device.active_keys

    @admin.display(description="registered with")
    def registered(self, device: Device) -> SafeString | str:
        if device.registered_with is None:
            return "added by hand"
        if device.registration_repeated_at is None:
            return link_to(device.registered_with)
        return format_html(
            "{}, repeated {} time{}, last at {}",
            link_to(device.registered_with),
            device.registration_repeats,
            pluralize(device.registration_repeats),
            exact(device.registration_repeated_at),
        )
