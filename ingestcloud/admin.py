"""Staff pages that belong to no room: users and groups in unfold's theme, and the theme's searches."""

import logging
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.core.paginator import InvalidPage
from django.db.models import ForeignObjectRel, Model, ProtectedError
from django.db.models.signals import pre_delete
from django.dispatch import receiver
from django.http import Http404, HttpRequest, HttpResponse
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.sites import UnfoldAdminSite

from ingestcloud.login import source_of
from tenants.admin.pages import StaffPages

logger = logging.getLogger(__name__)

admin.site.index_title = "Overview"
admin.site.unregister(User)
admin.site.unregister(Group)


class SuperusersOnly:
    """Anyone who may change users or groups could grant themselves every permission and see users of all tenants.

    Must be the first base: Django's own pages have methods of the same names, which go by permissions.
    """

    def has_module_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    has_change_permission = has_view_permission
    has_delete_permission = has_view_permission

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser


@admin.register(User)
class UserAdmin(SuperusersOnly, DjangoUserAdmin, StaffPages):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    search_help_text = "Username, name or email address"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Users who leave are made inactive, so that their name stays theirs."""
        return False

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        if request.resolver_match and request.resolver_match.url_name == "auth_user_password_change":
            logger.info("%s changed the password of %s from %s", request.user, obj, source_of(request))
        return super().log_change(request, obj, message)


@receiver(pre_delete, sender=User)
def keep_history(sender: Any, instance: User, **kwargs: Any) -> None:
    """Keep a command or a shell from deleting a user by accident together with what Django's log has about them.

    Only what was done before there was an audit, whose entries outlive the user.
    """
    entries: set[Model] = set(LogEntry.objects.filter(user=instance))
    if entries:
        raise ProtectedError("This user has a history. Make them inactive instead.", entries)


@admin.register(Group)
class GroupAdmin(SuperusersOnly, DjangoGroupAdmin, StaffPages):
    search_help_text = "Name"


def search(request: HttpRequest) -> HttpResponse:
    """The theme's page search, which would fail with a 500 if the page number is not valid. This is a 404."""
    page = request.GET.get("page", "1")
    if not (page.isascii() and page.isdecimal()) or page == "0" or len(page) > 9:
        raise Http404
    try:
        return cast("UnfoldAdminSite", admin.site).search(request)
    except InvalidPage as error:
        raise Http404 from error


class AutocompleteView(AutocompleteJsonView):
    """Django's, which fails on the reverse side of a relation, where there is nothing to choose."""

    admin_site = admin.site

    def process_request(self, request: HttpRequest) -> Any:
        found = super().process_request(request)
        if isinstance(found[2], ForeignObjectRel):
            raise PermissionDenied
        return found
