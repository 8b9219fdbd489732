"""The live page."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from alerts.models import SecurityAlert, SecurityAlertQuerySet, Severity
from alerts.representation import represent
from tenants.models import Tenant

RECENT_ALERTS = 200
SEARCHED_ALERTS = 5000  # newest ones, searched for open critical alerts; the admin has the older ones


@require_safe
@login_required
@never_cache
def live_alerts(request: HttpRequest) -> HttpResponse:
    """Recent alerts, newest first; from the newest id on, the page's script follows the socket."""
    visible = SecurityAlert.objects.for_user(request.user).select_related("tenant", "device", "group")
    recent = [represent(alert) for alert in recent_alerts(visible)]
    context = {
        "recent": recent,
        "may_look_at_alerts": request.user.is_staff and request.user.has_perm("alerts.view_securityalert"),
        "severities": list(reversed(Severity)),  # the worst first
        "tenants": list(Tenant.objects.for_user(request.user).values_list("name", flat=True)),
    }
    return render(request, "alerts/live.html", context)


def recent_alerts(visible: SecurityAlertQuerySet) -> list[SecurityAlert]:
    """The newest alerts, newest first, followed by older ones that are critical and still open."""
    newest = list(visible.order_by("-id")[:RECENT_ALERTS])
    if len(newest) < RECENT_ALERTS:
        return newest
    older = visible.filter(id__lt=newest[-1].pk).order_by("-id").values("pk")[:SEARCHED_ALERTS]
    critical = visible.open().filter(pk__in=older, severity=Severity.CRITICAL)
    return newest + list(critical.order_by("-id")[:RECENT_ALERTS])
