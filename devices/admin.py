"""Staff pages for tenants, devices and device keys.

Nobody deletes a tenant or a device here: events, batches and alerts carry their ids unchecked by the database, and
would be left without an owner. A device that is gone has its keys revoked.
"""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, ForeignKey, Q, QuerySet
from django.forms import ModelChoiceField, ModelForm
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import AllValuesCheckboxFilter, AutocompleteSelectFilter, RadioFilter

from devices.admin_keys import ChangesKeys, IssuesKeys, revoke_key
from devices.admin_tools import TenantScoped, ago, badge, exact, link_to
from devices.models import ONLINE_WITHIN, Device, DeviceKey, Module, Tenant, usable_at

KEY_STATES = {"active": "success", "expired": "warning", "revoked": "danger"}
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


class KeyStateFilter(RadioFilter):
    """The states as `DeviceKey.state` has them, asked of the database."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        return [(state, state.title()) for state in KEY_STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        now = timezone.now()
        wanted = {
            "active": usable_at(now),
            "expired": Q(expires_at__lte=now, revoked_at=None),
            "revoked": Q(revoked_at__isnull=False),
        }
        return queryset.filter(wanted.get(self.value(), Q()))


class NeverDeleted(ModelAdmin):
    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Tenant)
class TenantAdmin(NeverDeleted, TenantScoped):
    tenant_lookup = "pk"
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

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).annotate(device_count=Count("devices")).prefetch_related("members")

    def save_related(self, request: HttpRequest, form: ModelForm, formsets: list[Any], change: bool) -> None:
        """Who adds a tenant sees it: staff that are no superusers see those they are members of."""
        super().save_related(request, form, formsets, change)
        if not change and not request.user.is_superuser:
            form.instance.members.add(request.user)

    @admin.display(description="modules")
    def modules(self, tenant: Tenant) -> SafeString:
        return format_html_join(" ", "{}", ((badge(module.label, MODULES),) for module in tenant.modules))

    @admin.display(description="devices", ordering="device_count")
    def device_count(self, tenant: Any) -> int:
        return tenant.device_count

    @admin.display(description="members")
    def member_names(self, tenant: Tenant) -> str:
        return ", ".join(user.get_username() for user in tenant.members.all()) or "none"


@admin.register(Device)
class DeviceAdmin(IssuesKeys, NeverDeleted, TenantScoped):
    list_display = ("name", "tenant", "online", "last_seen", "type", "location", "active_keys")
    list_filter = (("tenant", AutocompleteSelectFilter), OnlineFilter, ("type", AllValuesCheckboxFilter))
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
        "created",
    )
    readonly_fields = ("online", "last_seen", "created")
    change_form_outer_after_template = "admin/devices/device/keys.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        usable = usable_at(timezone.now(), "keys__")
        return super().get_queryset(request).annotate(active_keys=Count("keys", filter=Q(keys__isnull=False) & usable))

    def get_fields(self, request: HttpRequest, obj: Device | None = None) -> Any:
        return self.fields if obj else self.fields[:3]

    def get_readonly_fields(self, request: HttpRequest, obj: Device | None = None) -> tuple[str, ...]:
        """A device stays with its tenant: what it has sent is that tenant's."""
        return (*self.readonly_fields, "tenant") if obj else self.readonly_fields

    def formfield_for_foreignkey(self, db_field: ForeignKey, request: HttpRequest, **kwargs: Any) -> ModelChoiceField:
        return super().formfield_for_foreignkey(
            db_field, request, queryset=Tenant.objects.for_user(request.user), **kwargs
        )

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


@admin.register(DeviceKey)
class DeviceKeyAdmin(ChangesKeys, TenantScoped):
    """Keys are looked at here and ended; they are made on their device's page, where the plaintext is shown."""

    tenant_lookup = "device__tenant"
    list_display = ("prefix", "state_label", "device_link", "tenant", "created", "expires", "last_used")
    list_filter = (KeyStateFilter, ("device", AutocompleteSelectFilter), ("device__tenant", AutocompleteSelectFilter))
    list_filter_submit = True
    list_select_related = ("device__tenant",)
    list_per_page = 50
    search_fields = ("prefix__startswith",)
    search_help_text = "How the key starts, such as dvc_Ab3"
    fields = (("prefix", "state_label"), ("device_link", "tenant"), ("created", "expires"), ("last_used", "revoked"))
    actions = ("revoke_selected",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: DeviceKey | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: DeviceKey | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: DeviceKey | None = None) -> bool:
        return request.user.has_perm("devices.view_devicekey") or self.has_revoke_permission(request)

    @admin.action(description="Revoke the selected device keys", permissions=["revoke"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet) -> None:
        keys = list(queryset.filter(revoked_at=None))
        for key in keys:
            revoke_key(request, key)
        self.message_user(request, f"{len(keys)} device keys revoked.", messages.SUCCESS)

    @admin.display(description="state")
    def state_label(self, key: DeviceKey) -> SafeString:
        return badge(key.state, KEY_STATES)

    @admin.display(description="device")
    def device_link(self, key: DeviceKey) -> SafeString:
        return link_to(key.device)

    @admin.display(description="tenant")
    def tenant(self, key: DeviceKey) -> str:
        return key.device.tenant.name

    @admin.display(description="created", ordering="created_at")
    def created(self, key: DeviceKey) -> str:
        return exact(key.created_at)

    @admin.display(description="expires", ordering="expires_at")
    def expires(self, key: DeviceKey) -> str:
        return exact(key.expires_at) if key.expires_at else "never"

    @admin.display(description="last used", ordering="last_used_at")
    def last_used(self, key: DeviceKey) -> str:
        return ago(key.last_used_at)

    @admin.display(description="revoked")
    def revoked(self, key: DeviceKey) -> str:
        return exact(key.revoked_at) if key.revoked_at else "no"
