"""Staff pages for tenants.

A tenant is never deleted: events, batches and alerts carry its id, which the database does not check.
"""

from contextlib import nullcontext
from typing import Any, cast

from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import Count, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import RadioFilter

from tenants.admin.display import badge
from tenants.admin.pages import NeverDeleted, TenantScoped
from tenants.isolation import bypass_isolation
from tenants.models import Membership, Module, Tenant

MODULE_COLOURS = dict.fromkeys((module.label for module in Module), "primary")


class ModuleFilter(RadioFilter):
    title = "module"
    parameter_name = "module"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        return Module.choices

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(**{f"{self.value()}_enabled": True}) if self.value() in Module.values else queryset


class TenantForm(ModelForm):
    def validate_unique(self) -> None:
        with bypass_isolation():  # a slug is taken even if its tenant is invisible to this user
            super().validate_unique()


class MembershipInline(TabularInline):
    """A tenant's members and their roles."""

    model = Membership
    extra = 0
    fields = ("user", "role")
    autocomplete_fields = ("user",)
    verbose_name = "member"
    verbose_name_plural = "members"

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).select_related("tenant", "user")  # the heading of a row names both

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    has_add_permission = has_change_permission = has_delete_permission = has_view_permission


@admin.register(Tenant)
class TenantAdmin(NeverDeleted, TenantScoped):
    form = TenantForm
    ordering = ("slug",)  # the query that counts devices drops the model's ordering
    list_display = ("name", "slug", "modules", "device_count", "member_names")
    list_filter = (ModuleFilter,)
    search_fields = ("name", "slug")
    search_help_text = "Name or slug"
    prepopulated_fields = {"slug": ["name"]}
    fieldsets = (
        (None, {"fields": ["name", "slug"]}),
        ("Modules", {"fields": [f"{module}_enabled" for module in Module]}),
        ("Retention", {"fields": ["retention_days"]}),
    )
    inlines = (MembershipInline,)

    def get_fieldsets(self, request: HttpRequest, obj: Tenant | None = None) -> Any:
        """Only superusers choose members: other staff can't see which users exist, only the members' names."""
        if request.user.is_superuser:
            return self.fieldsets
        return (*self.fieldsets, ("Members", {"fields": ["member_names"]}))

    def get_readonly_fields(self, request: HttpRequest, obj: Tenant | None = None) -> tuple[str, ...]:
        return () if request.user.is_superuser else ("member_names",)

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).annotate(device_count=Count("devices")).prefetch_related("members")

    def save_model(self, request: HttpRequest, obj: Tenant, form: ModelForm, change: bool) -> None:
        with nullcontext() if change else bypass_isolation():  # a new tenant has no members yet
            super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: ModelForm, formsets: list[Any], change: bool) -> None:
        """Make the user a member of a tenant that they add: otherwise only superusers would see it."""
        super().save_related(request, form, formsets, change)
        if not change and not request.user.is_superuser:
            with bypass_isolation():
                Membership.objects.create(tenant=form.instance, user=cast("User", request.user))

    @admin.display(description="modules")
    def modules(self, tenant: Tenant) -> SafeString:
        return format_html_join(" ", "{}", ((badge(module.label, MODULE_COLOURS),) for module in tenant.modules))

    @admin.display(description="devices", ordering="device_count")
    def device_count(self, tenant: Any) -> int:
        return tenant.device_count

    @admin.display(description="members")
    def member_names(self, tenant: Tenant) -> str:
        names = [user.get_username() for user in tenant.members.all()] if tenant.pk else []
        return ", ".join(names) or "none"
