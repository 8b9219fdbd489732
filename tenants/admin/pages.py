"""What all admin pages share: whose rows they show, and what they accept from URLs and searches."""

from functools import cache
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import BadRequest, FieldDoesNotExist, PermissionDenied, ValidationError
from django.db import IntegrityError
from django.db.models import ForeignKey, Model, QuerySet
from django.forms import ModelChoiceField
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, checkbox
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.contrib.filters.forms import AutocompleteDropdownForm

from common.sequences import is_taken_id
from tenants.admin.changelist import StaffChangeList
from tenants.admin.display import exact, related
from tenants.models import Tenant, TenantOwnedQuerySet

MAX_WORDS = 10  # of a search


def page(request: HttpRequest, model_admin: ModelAdmin, template: str, **context: Any) -> TemplateResponse:
    """An admin page that is neither a list nor an object's form."""
    request.current_app = model_admin.admin_site.name
    context = {**model_admin.admin_site.each_context(request), "opts": model_admin.opts, **context}
    return TemplateResponse(request, template, context)


@cache
def row_checkbox() -> SafeString:
    """unfold's checkbox, with braces for its value, as `tenants.admin.display.label` has them for its text."""
    return checkbox.render(ACTION_CHECKBOX_NAME, "{}")


class StaffPages(ModelAdmin):
    """The base of all admin pages: checks what people put into URLs and searches."""

    is_exportable = True  # as files, in the background

    @admin.display(description=ModelAdmin.action_checkbox.short_description)
    def action_checkbox(self, obj: Any) -> SafeString:
        return format_html(row_checkbox(), obj.pk)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return StaffChangeList

    # Django's own log is not written: the audit has what was done, by whichever way.

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        pass

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        pass

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        pass

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """What the audit has about an object: one history, in one place."""
        row = self.get_object(request, unquote(object_id))
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        if not self.has_view_or_change_permission(request, row):
            raise PermissionDenied
        query = {"object": f"{self.opts.label_lower}-{row.pk}"}
        return HttpResponseRedirect(reverse("admin:tenants_auditentry_changelist", query=query))

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Another request may take a name between a form's check and its save: checked again, the form says so.

        Raises BadRequest for a row that no chooser offers: Django would raise when it shows the form again.
        """
        for name in self.autocomplete_fields:
            if not all(self._is_possible(name, value) for value in request.POST.getlist(name) if value):
                raise BadRequest(f"{name} is not the key of a row.")
        try:
            return super().changeform_view(request, *args, **kwargs)
        except IntegrityError as error:  # nothing was saved: Django wraps each call in a transaction of its own
            if is_taken_id(error):
                raise
            return super().changeform_view(request, *args, **kwargs)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """The initial values for a new row from the URL, without those that are impossible for their fields."""
        given = super().get_changeform_initial_data(request)
        return {name: value for name, value in given.items() if self._is_possible(name, value)}

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Use `_to_field` from the URL only if the model has that field: Django allows some that it does not have."""
        fields = {field.name for field in self.opts.concrete_fields}
        return super().get_object(request, object_id, from_field if from_field in fields else None)

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        """Not for the name of a reverse relation, which Django takes for a field's: it would raise."""
        return any(field.name == to_field for field in self.opts.concrete_fields) and super().to_field_allowed(
            request, to_field
        )

    def _is_possible(self, name: str, value: Any) -> bool:
        try:
            field = self.opts.get_field(name)
            key = field.related_model._meta.pk if field.is_relation else field
            for each in value if field.many_to_many else [value]:
                key.to_python(each)
        except (FieldDoesNotExist, ValidationError, ValueError, TypeError, OverflowError):
            return False
        return True

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        """Each word is another comparison with every row, so there is a limit."""
        if len(search_term.split()) > MAX_WORDS:
            message = f"A search takes at most {MAX_WORDS} words. Nothing was searched for."
            self.message_user(request, message, messages.ERROR)
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)


class NeverDeleted(ModelAdmin):
    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class TenantScoped(StaffPages):
    """Staff see the rows of the tenants they are members of; superusers see all, as in the console."""

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return cast("TenantOwnedQuerySet", super().get_queryset(request)).for_user(request.user)

    def formfield_for_foreignkey(
        self, db_field: ForeignKey, request: HttpRequest, **kwargs: Any
    ) -> ModelChoiceField | None:
        """Offer only the tenants that the user may see."""
        if db_field.related_model is Tenant:
            kwargs["queryset"] = Tenant.objects.for_user(request.user)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


class SentByDevices(TenantScoped):
    """For rows with a tenant, a device and `received_at`. Staff can neither add to nor change what devices sent."""

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        # Not select_related: its inner join would hide rows whose device or tenant no longer exists.
        return super().get_queryset(request).prefetch_related("tenant", "device")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @admin.display(description="tenant")
    def tenant_link(self, row: Model) -> SafeString:
        return related(row, "tenant")

    @admin.display(description="device")
    def device_link(self, row: Model) -> SafeString:
        return related(row, "device")

    @admin.display(description="received", ordering="received_at")
    def received(self, row: Any) -> SafeString:
        return format_html('<span class="whitespace-nowrap">{}</span>', exact(row.received_at))


class RelatedForm(AutocompleteDropdownForm):
    """Names the chosen object only if the user may see it: unfold's form names the rows of all tenants."""

    def __init__(self, request: HttpRequest, name: str, field: Any, **kwargs: Any) -> None:
        super().__init__(request, name, field=field, **kwargs)
        pages = admin.site.get_model_admin(field.remote_field.model)
        cast("ModelChoiceField", self.fields[name]).queryset = pages.get_queryset(request)


class RelatedFilter(AutocompleteSelectFilter):
    """Filters by a tenant or a device that is chosen by a search."""

    form_class = RelatedForm
