"""Staff's pages for tenants, devices, device keys, users and groups."""

from datetime import timedelta

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.timesince import timesince
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from devices.admin_keys import IssueKeyMixin, KeyActionsMixin
from devices.models import ONLINE_WITHIN, Device, DeviceKey, Module, Tenant

admin.site.unregister([User, Group])


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    form, add_form, change_password_form = UserChangeForm, UserCreationForm, AdminPasswordChangeForm


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    pass


def ago(moment, never: str = "never") -> str:
    """How long ago, in words, with the exact moment to hover over."""
    if moment is None:
        return never
    exact = moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    if moment > timezone.now() - timedelta(minutes=1):
        return format_html('<span title="{}">just now</span>', exact)
    return format_html('<span title="{}">{} ago</span>', exact, timesince(moment, depth=1))


class NoDeletion:
    """What events point to stays: they are not deleted with it, and would lose their name."""

    def has_delete_permission(self, request: HttpRequest, obj=None) -> bool:
        return False


@admin.register(Tenant)
class TenantAdmin(NoDeletion, ModelAdmin):
    list_display = ["name", "slug", "modules_on", "device_count", "member_count", "created_at"]
    list_filter = [f"{module}_enabled" for module in Module]
    search_fields = ["name", "slug"]
    prepopulated_fields = {"slug": ["name"]}
    autocomplete_fields = ["members"]
    fieldsets = [
        (None, {"fields": ["name", "slug"]}),
        ("Modules", {"fields": [tuple(f"{module}_enabled" for module in Module)]}),
        ("Access", {"fields": ["members"]}),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tenant]:
        counts = {"devices_": Count("devices", distinct=True), "members_": Count("members", distinct=True)}
        return super().get_queryset(request).annotate(**counts)

    @display(description="modules", label=True)
    def modules_on(self, tenant: Tenant) -> list[str]:
        return [str(module.label) for module in tenant.modules] or ["none"]

    @display(description="devices", ordering="devices_")
    def device_count(self, tenant) -> int:
        return tenant.devices_

    @display(description="members", ordering="members_")
    def member_count(self, tenant) -> int:
        return tenant.members_


class OnlineFilter(admin.SimpleListFilter):
    title = "online"
    parameter_name = "online"

    def lookups(self, request: HttpRequest, model_admin) -> list[tuple[str, str]]:
        return [("yes", "Online"), ("no", "Offline"), ("never", "Never seen")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        since = timezone.now() - ONLINE_WITHIN
        conditions = {
            "yes": Q(last_seen_at__gt=since),
            "no": Q(last_seen_at__lte=since),
            "never": Q(last_seen_at=None),
        }
        return queryset.filter(conditions.get(self.value(), Q()))


STATE_COLOURS = {"active": "success", "expired": "warning", "revoked": "danger"}
ONLINE_COLOURS = {"online": "success", "offline": "warning", "never seen": "info"}


class DeviceKeyInline(TabularInline):
    model = DeviceKey
    fields = readonly_fields = ["prefix", "state_label", "created_at", "expires_at", "used", "next_steps"]
    extra = 0
    verbose_name_plural = "Device keys"
    tab = False

    def has_add_permission(self, request: HttpRequest, obj=None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj=None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj=None) -> bool:
        return False

    @display(description="state", label=STATE_COLOURS)
    def state_label(self, key: DeviceKey) -> str:
        return key.state

    @display(description="last used")
    def used(self, key: DeviceKey) -> str:
        return ago(key.last_used_at)

    @display(description="")
    def next_steps(self, key: DeviceKey) -> str:
        if key.state != "active":
            return ""
        return format_html(
            '<a class="text-primary-600 dark:text-primary-500" href="{}">Rotate</a> &nbsp; '
            '<a class="text-red-600 dark:text-red-500" href="{}">Revoke</a>',
            reverse("admin:devices_devicekey_rotate", args=[key.pk]),
            reverse("admin:devices_devicekey_revoke", args=[key.pk]),
        )


@admin.register(Device)
class DeviceAdmin(NoDeletion, IssueKeyMixin, ModelAdmin):
    list_display = ["name", "tenant", "online", "seen", "type", "location", "active_keys"]
    list_select_related = ["tenant"]
    list_filter = [("tenant", AutocompleteSelectFilter), OnlineFilter]
    list_filter_submit = True
    search_fields = ["name", "location"]
    autocomplete_fields = ["tenant"]
    readonly_fields = ["online", "seen", "created_at"]
    inlines = [DeviceKeyInline]

    def get_fieldsets(self, request: HttpRequest, obj=None):
        fieldsets = [(None, {"fields": ["tenant", "name", "type", "location"]})]
        return fieldsets if obj is None else [*fieldsets, ("Seen", {"fields": [("online", "seen", "created_at")]})]

    def get_inlines(self, request: HttpRequest, obj=None):
        return self.inlines if obj else []

    def get_queryset(self, request: HttpRequest) -> QuerySet[Device]:
        now = timezone.now()
        usable = Q(keys__revoked_at=None) & (Q(keys__expires_at=None) | Q(keys__expires_at__gt=now))
        return super().get_queryset(request).annotate(active_keys_=Count("keys", filter=usable & Q(keys__isnull=False)))

    @display(description="status", label=ONLINE_COLOURS)
    def online(self, device: Device) -> str:
        if device.last_seen_at is None:
            return "never seen"
        return "online" if device.is_online else "offline"

    @display(description="last seen", ordering="last_seen_at")
    def seen(self, device: Device) -> str:
        return ago(device.last_seen_at)

    @display(description="active keys", ordering="active_keys_")
    def active_keys(self, device) -> int:
        return device.active_keys_


class KeyStateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin) -> list[tuple[str, str]]:
        return [("active", "Active"), ("expired", "Expired"), ("revoked", "Revoked")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        now = timezone.now()
        if self.value() == "active":
            return queryset.filter(Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None)
        if self.value() == "expired":
            return queryset.filter(expires_at__lte=now, revoked_at=None)
        return queryset.exclude(revoked_at=None) if self.value() == "revoked" else queryset


@admin.register(DeviceKey)
class DeviceKeyAdmin(NoDeletion, KeyActionsMixin, ModelAdmin):
    """Keys are issued from their device; here they are found, rotated and revoked."""

    list_display = ["prefix", "device", "tenant", "state_label", "created_at", "expires_at", "used"]
    list_select_related = ["device__tenant"]
    list_filter = [KeyStateFilter, ("device__tenant", AutocompleteSelectFilter), ("device", AutocompleteSelectFilter)]
    list_filter_submit = True
    search_fields = ["prefix__startswith"]
    search_help_text = "The start of a key, dvc_…"
    fields = readonly_fields = ["device", "prefix", "state_label", "created_at", "expires_at", "revoked_at", "used"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @display(description="tenant")
    def tenant(self, key: DeviceKey) -> Tenant:
        return key.device.tenant

    @display(description="state", label=STATE_COLOURS)
    def state_label(self, key: DeviceKey) -> str:
        return key.state

    @display(description="last used", ordering="last_used_at")
    def used(self, key: DeviceKey) -> str:
        return ago(key.last_used_at)
