"""Staff pages that belong to no room: users and groups in unfold's theme, and the figures on the front page."""

import logging
from datetime import timedelta
from typing import Any, NamedTuple, cast

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.core.paginator import InvalidPage
from django.db.models import Count, ForeignObjectRel, Max, Model, ProtectedError, Q, Sum
from django.db.models.signals import pre_delete
from django.dispatch import receiver
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.sites import UnfoldAdminSite

from alerts.admin import SecurityAlertAdmin
from alerts.models import AlertGroup, SecurityAlert, Severity, Status
from devices.models import ONLINE_WITHIN, Device, DeviceKey
from ingest.models import RefusedKeyCount, RejectedBatch
from ingest.rejections import oldest_kept
from ingestcloud.admin_theme import is_superuser, may_look_at
from ingestcloud.login import source_of
from tenants.admin.display import ago, link_to
from tenants.admin.pages import StaffPages

logger = logging.getLogger(__name__)

admin.site.index_title = "Overview"
admin.site.unregister(User)
admin.site.unregister(Group)

EXPIRING_WITHIN = timedelta(days=14)
NEWEST_ALERTS = 8
MAX_COUNTED_GROUPS = 10_000  # those that changed last


class Figure(NamedTuple):
    title: str
    value: str
    url: str


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


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add what a person on duty looks at first, as far as their permissions allow."""
    figures = (
        ("devices.device", devices_online),
        ("alerts.alertgroup", open_alerts),
        ("devices.devicekey", expiring_keys),
        ("ingest.ingestbatch", last_batch),
        ("ingest.rejectedbatch", rejected_batches),
    )
    context["figures"] = [figure(request) for model, figure in figures if may_look_at(*model.split("."))(request)]
    if is_superuser(request):
        context["figures"].append(refused_keys())
    if may_look_at("alerts", "securityalert")(request):
        context["newest_alerts"] = newest_alerts(request)
    return context


def newest_alerts(request: HttpRequest) -> dict[str, Any]:
    """A table of the newest alerts, with columns from the list of alerts."""
    pages = cast(SecurityAlertAdmin, admin.site.get_model_admin(SecurityAlert))
    columns = (pages.severity_label, pages.status_label, link_to, pages.device_link, pages.received)
    newest = SecurityAlert.objects.newest_of(request.user, NEWEST_ALERTS).values("pk")
    alerts = pages.get_queryset(request).filter(pk__in=newest).order_by("-pk")
    rows = [[column(alert) for column in columns] for alert in alerts]
    return {"headers": ["severity", "status", "title", "device", "received"], "rows": rows}


def devices_online(request: HttpRequest) -> Figure:
    limit = timezone.now() - ONLINE_WITHIN
    devices = Device.objects.for_user(request.user)
    counts = devices.aggregate(all=Count("pk"), online=Count("pk", filter=Q(last_seen_at__gt=limit)))
    url = reverse("admin:devices_device_changelist", query={"online": "yes"})
    return Figure("Devices online", f"{counts['online']} of {counts['all']}", url)


def open_alerts(request: HttpRequest) -> Figure:
    """Counts groups that nobody has looked at, once however often they repeat.

    Only among those that changed last, like all figures here: no table, however large, may slow down the front page.
    """
    severe = [Severity.HIGH, Severity.CRITICAL]
    latest = AlertGroup.objects.latest_of(request.user, MAX_COUNTED_GROUPS)
    count = latest.aggregate(open=Count("pk", filter=Q(status=Status.NEW, severity__in=severe)))["open"]
    query = {"status__exact": Status.NEW.value, "severity__exact": [severity.value for severity in severe]}
    url = reverse("admin:alerts_alertgroup_changelist", query=query)
    return Figure("Open alerts, high or critical", str(count), url)


def expiring_keys(request: HttpRequest) -> Figure:
    now = timezone.now()
    keys = DeviceKey.objects.usable(now).for_user(request.user)
    count = keys.filter(expires_at__lt=now + EXPIRING_WITHIN).count()
    first_to_expire = {"state": "active", "o": "6"}  # ordered by the list's sixth column
    url = reverse("admin:devices_devicekey_changelist", query=first_to_expire)
    return Figure(f"Keys that expire in {EXPIRING_WITHIN.days} days", str(count), url)


def last_batch(request: HttpRequest) -> Figure:
    """As the devices noted it, to the minute: no index leads to the newest batch of a tenant."""
    last = Device.objects.for_user(request.user).aggregate(last=Max("last_seen_at"))["last"]
    return Figure("Last batch", ago(last), reverse("admin:ingest_ingestbatch_changelist"))


def rejected_batches(request: HttpRequest) -> Figure:
    kept = RejectedBatch.objects.for_user(request.user).filter(received_at__gte=oldest_kept(timezone.now()))
    return Figure("Rejected batches", str(kept.count()), reverse("admin:ingest_rejectedbatch_changelist"))


def refused_keys() -> Figure:
    """For the whole site, because such a request belongs to no tenant; so only superusers see it."""
    counts = RefusedKeyCount.objects.filter(hour__gt=timezone.now() - timedelta(days=1))
    requests = counts.aggregate(all=Sum("requests"))["all"] or 0
    return Figure(
        "Requests without a valid key, 24 hours", str(requests), reverse("admin:devices_devicekey_changelist")
    )
