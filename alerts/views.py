"""The live page."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from alerts.logins import MAX_SOCKETS
from alerts.models import SecurityAlert, Severity, Status
from alerts.representation import represent
from tenants.models import Tenant

RECENT_ALERTS = 200
SEARCHED_ALERTS = 5000  # those before them, searched for open critical alerts; the admin has the older ones


@require_safe
@login_required
@never_cache
def live_alerts(request: HttpRequest) -> HttpResponse:
    """Recent alerts, newest first; from the newest id on, the page's script follows the socket."""
    recent = [represent(alert) for alert in recent_alerts(request.user)]
    context = {
        "recent": recent,
        "may_look_at_alerts": may_look_at_alerts(request),
        "max_sockets": MAX_SOCKETS,
        "severities": list(reversed(Severity)),  # the worst first
        "may_manage_members": Tenant.objects.for_admin(request.user).exists(),
        "tenants": list(Tenant.objects.for_user(request.user).values_list("name", flat=True)),
    }
    return render(request, "alerts/live.html", context)


def may_look_at_alerts(request: HttpRequest) -> bool:
    """Whether the user may open the admin's list of alerts."""
    pages = admin.site.get_model_admin(SecurityAlert)
    return admin.site.has_permission(request) and pages.has_view_permission(request)


def recent_alerts(user: Any) -> list[SecurityAlert]:
    """The newest alerts, newest first, followed by older critical ones that nobody has looked at."""
    alerts = SecurityAlert.objects.select_related("tenant", "device", "group")
    newest = list(alerts.newest_of(user, RECENT_ALERTS))
    if len(newest) < RECENT_ALERTS:
        return newest
    searched = SecurityAlert.objects.newest_of(user, RECENT_ALERTS + SEARCHED_ALERTS)
    # Chosen here: a condition and a limit would let the database search the primary key for them.
    rows = searched.values_list("pk", "group__status", "severity")
    critical = [pk for pk, *state in rows if state == [Status.NEW, Severity.CRITICAL] and pk < newest[-1].pk]
    return newest + list(alerts.filter(pk__in=critical[:RECENT_ALERTS]).order_by("-id"))
