"""Staff pages for tenants and devices. Those of keys are in `admin_device_keys` and `admin_provisioning`.

Nobody deletes a tenant or a device here: events, batches and alerts carry their ids unchecked by the database, and
would be left without an owner. A device that is gone has its keys revoked.
"""

from contextlib import nullcontext
from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.template.defaultfilters import pluralize
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import AllValuesCheckboxFilter, RadioFilter

from devices import admin_provisioning  # noqa: F401  registers its pages
from devices.admin_device_keys import IssuesKeys
from devices.admin_tools import RelatedFilter, TenantScoped, ago, badge, exact, link_to
from devices.isolation import as_ourselves
from devices.keys import usable_at
from devices.models import ONLINE_WITHIN, Device, Module, Tenant

MODULES = dict.fromkeys((module.label for module in Module), "primary")
ONLINE_STATES = {"online": "success", "offline": None, "never seen": "warning"}


class ModuleFilter(RadioFilter):
    title = "module"
    parameter_name = "module"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        return Module.choices

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(**{f"{self.value()}_enabled": True}) if self.value() in Module.values else queryset


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


class NeverDeleted(ModelAdmin):
    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class TenantForm(ModelForm):
    def validate_unique(self) -> None:
        with as_ourselves():  # a slug that somebody else's tenant has is taken too
            super().validate_unique()


@admin.register(Tenant)
class TenantAdmin(NeverDeleted, TenantScoped):
    form = TenantForm
    tenant_lookup = "pk"
    ordering = ("slug",)  # what counts its devices has no order of its own
    list_display = ("name", "slug", "modules", "device_count", "member_names")
    list_filter = (ModuleFilter,)
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ["name"]}
    autocomplete_fields = ("members",)
    fieldsets = (
        (None, {"fields": ["name", "slug"]}),
        ("Modules", {"fields": [f"{module}_enabled" for module in Module]}),
        ("Retention", {"fields": ["retention_days"]}),
        ("Analysts", {"fields": ["members"]}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Tenant | None = None) -> Any:
        """Who is a member is for superusers to say: others do not see the users that there are."""
        if request.user.is_superuser:
            return self.fieldsets
        return (*self.fieldsets[:-1], ("Analysts", {"fields": ["member_names"]}))

    def get_readonly_fields(self, request: HttpRequest, obj: Tenant | None = None) -> tuple[str, ...]:
        return () if request.user.is_superuser else ("member_names",)

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).annotate(device_count=Count("devices")).prefetch_related("members")

    def save_model(self, request: HttpRequest, obj: Tenant, form: ModelForm, change: bool) -> None:
        with nullcontext() if change else as_ourselves():  # a new one has no members yet
            super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: ModelForm, formsets: list[Any], change: bool) -> None:
        """Who adds a tenant sees it: staff that are no superusers see those they are members of."""
        super().save_related(request, form, formsets, change)
        if not change and not request.user.is_superuser:
            with as_ourselves():
                form.instance.members.add(request.user)

    @admin.display(description="modules")
    def modules(self, tenant: Tenant) -> SafeString:
        return format_html_join(" ", "{}", ((badge(module.label, MODULES),) for module in tenant.modules))

    @admin.display(description="devices", ordering="device_count")
    def device_count(self, tenant: Any) -> int:
        return tenant.device_count

    @admin.display(description="members")
    def member_names(self, tenant: Tenant) -> str:
        names = [user.get_username() for user in tenant.members.all()] if tenant.pk else []
        return ", ".join(names) or "none"


@admin.register(Device)
class DeviceAdmin(IssuesKeys, NeverDeleted, TenantScoped):
    list_display = ("name", "tenant", "online", "last_seen", "type", "location", "active_keys")
    list_filter = (("tenant", RelatedFilter), OnlineFilter, ("type", AllValuesCheckboxFilter))
    list_filter_submit = True
    list_select_related = ("tenant",)
    list_per_page = 50
    search_fields = ("name",)
    autocomplete_fields = ("tenant",)
    fields = (
        ("tenant", "name"),
        ("type", "location"),
        ("events_per_second", "burst"),
        ("online", "last_seen"),
        ("created", "registered"),
    )
    readonly_fields = ("online", "last_seen", "created", "registered")
    change_form_outer_after_template = "admin/devices/device/keys.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        usable = usable_at(timezone.now(), "keys__")
        return super().get_queryset(request).annotate(active_keys=Count("keys", filter=Q(keys__isnull=False) & usable))

    def get_fields(self, request: HttpRequest, obj: Device | None = None) -> Any:
        return self.fields if obj else self.fields[:3]

    def get_readonly_fields(self, request: HttpRequest, obj: Device | None = None) -> tuple[str, ...]:
        """A device stays with its tenant: what it has sent is that tenant's."""
        return (*self.readonly_fields, "tenant") if obj else self.readonly_fields

    @admin.display(description="state", ordering="last_seen_at")
    def online(self, device: Device) -> SafeString:
        if device.last_seen_at is None:
            return badge("never seen", ONLINE_STATES)
        return badge("online" if device.is_online else "offline", ONLINE_STATES)

    @admin.display(description="last seen", ordering="last_seen_at")
    def last_seen(self, device: Device) -> str:
        return ago(device.last_seen_at)

    @admin.display(description="added")
    def created(self, device: Device) -> str:
        return exact(device.created_at)

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
