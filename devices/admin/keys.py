"""What the admin pages of all keys share: their lists, revoking them, and the only page that shows a plaintext.

A plaintext is in the answer to the POST that made it and nowhere else: not in a message (which is stored in the
session), not in the audit, not at an address that can be opened again.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import action
from unfold.enums import ActionVariant

from devices.models import DeviceKey, ProvisioningKey
from tenants.admin.display import ago, badge, exact, page_of
from tenants.admin.pages import TenantScoped, page

AnyKey = DeviceKey | ProvisioningKey
STATE_COLOURS = {"active": "success", "expired": "warning", "used up": None, "revoked": "danger"}


class KeyStateFilter(RadioFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [(state, state.capitalize()) for state in cast("type[AnyKey]", model_admin.model).STATES]

    def queryset(self, request: HttpRequest, queryset: Any) -> QuerySet:
        return queryset.in_state(self.value()) if self.value() in queryset.model.STATES else queryset


def in_the_future(moment: datetime | None) -> datetime | None:
    """`moment`, when a key is to expire. Raises ValidationError if it is in the past."""
    if moment is not None and moment <= timezone.now():
        raise forms.ValidationError("A key that has already expired would be useless. Choose a time in the future.")
    return moment


def plaintext_page(
    request: HttpRequest, model_admin: admin.ModelAdmin, template: str, key: AnyKey, plaintext: str, **context: Any
) -> TemplateResponse:
    """The only page that ever shows `plaintext`. No cache may keep it."""
    title = f"{str(key._meta.verbose_name).capitalize()} issued"
    response = page(request, model_admin, template, title=title, key=key, plaintext=plaintext, **context)
    response["Cache-Control"] = "no-store"
    return response


class KeyAdmin(TenantScoped):
    """Shows keys and ends them. `revoke_template` explains what revoking does."""

    model: type[AnyKey]
    revoke_template: str
    list_filter_submit = True
    list_per_page = 50
    actions = ("revoke_selected",)
    actions_detail: tuple[str, ...] = ("revoke",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(f"devices.view_{self.opts.model_name}") or self.has_revoke_permission(request)

    def has_revoke_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm(f"devices.change_{self.opts.model_name}")

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """A key that is revoked or expired has no actions left."""
        key = self.get_object(request, object_id)
        return super().get_actions_detail(request, object_id) if key and key.is_usable(timezone.now()) else []

    @admin.action(description="Revoke the selected keys", permissions=["revoke"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet) -> None:
        with transaction.atomic():
            # Locked: a key that another person revokes at the same moment keeps the time that they revoked it.
            keys = list(queryset.filter(revoked_at=None).select_for_update(of=("self",)))
            for key in keys:
                key.revoke()
        self.message_user(request, f"{len(keys)} {self.opts.verbose_name_plural} revoked.", messages.SUCCESS)

    @action(description="Revoke", url_path="revoke", icon="block", variant=ActionVariant.DANGER, permissions=["revoke"])
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self.end_key(request, object_id, "Revoke", forms.Form, self.revoke_template, self._revoke)

    def end_key(
        self,
        request: HttpRequest,
        object_id: str,
        verb: str,
        form_class: type[forms.Form],
        template: str,
        act: Callable[[HttpRequest, Any, forms.Form], HttpResponse],
    ) -> HttpResponse:
        """Ask on GET, act on POST. The row is locked: if two people end a key at once, the second is told so."""
        with transaction.atomic():
            found = self.get_queryset(request).select_related(None).select_for_update()
            key = found.filter(pk=object_id).first() if object_id.isdecimal() else None
            if key is None:
                return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
            name = f"{self.opts.verbose_name} {key}"
            if not key.is_usable(timezone.now()):
                self.message_user(request, f"The {name} is already {key.state}.", messages.WARNING)
                return HttpResponseRedirect(page_of(key.owner))
            form = form_class(request.POST) if request.method == "POST" else form_class()
            if request.method == "POST" and form.is_valid():
                return act(request, key, form)
        title = f"{verb} the {name}"
        return page(request, self, template, title=title, key=key, form=form, back_url=page_of(key.owner))

    def _revoke(self, request: HttpRequest, key: AnyKey, form: forms.Form) -> HttpResponse:
        key.revoke()
        self.message_user(request, f"The {self.opts.verbose_name} {key} is revoked.", messages.SUCCESS)
        return HttpResponseRedirect(page_of(key.owner))

    @admin.display(description="state")
    def state_label(self, key: AnyKey) -> SafeString:
        return badge(key.state, STATE_COLOURS)

    @admin.display(description="created", ordering="created_at")
    def created(self, key: AnyKey) -> str:
        return exact(key.created_at)

    @admin.display(description="expires", ordering="expires_at")
    def expires(self, key: AnyKey) -> str:
        return exact(key.expires_at) if key.expires_at else "never"

    @admin.display(description="last used", ordering="last_used_at")
    def last_used(self, key: AnyKey) -> str:
        return ago(key.last_used_at)

    @admin.display(description="revoked")
    def revoked(self, key: AnyKey) -> str:
        return exact(key.revoked_at) if key.revoked_at else "no"
