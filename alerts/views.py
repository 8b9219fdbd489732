"""The live page."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from alerts.models import SecurityAlert, Severity
from alerts.representation import represent
from devices.models import Tenant

RECENT = 200


@require_GET
@login_required
@never_cache
def live_alerts(request: HttpRequest) -> HttpResponse:
    """The recent past, newest first; the page's script then follows the socket from the newest id."""
    visible = SecurityAlert.objects.for_user(request.user).select_related("tenant", "device")
    recent = [represent(alert) for alert in visible.order_by("-id")[:RECENT]]
    context = {
        "recent": recent,
        "severities": list(reversed(Severity)),  # the worst first
        "tenants": list(Tenant.objects.for_user(request.user).values_list("name", flat=True)),
    }
    return render(request, "alerts/live.html", context)
