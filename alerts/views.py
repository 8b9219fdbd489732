"""The analysts' console."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from alerts.logins import MAX_SOCKETS
from alerts.models import Disposition, Severity, Status
from tenants.models import Tenant


@require_safe
@login_required
@never_cache
def console(request: HttpRequest) -> HttpResponse:
    """The page itself. Its groups come from the API, then from the socket."""
    tenants = list(Tenant.objects.for_user(request.user))
    context = {
        "sees_alerts": bool(tenants) or request.user.is_superuser,
        "max_sockets": MAX_SOCKETS,
        "severities": list(reversed(Severity)),  # the worst first
        "statuses": list(Status),
        "dispositions": list(Disposition),
        "alarms": [("sound", "Sound"), ("notification", "Desktop notification, while you look elsewhere")],
        "tenants": tenants,
        "may_manage_members": Tenant.objects.for_admin(request.user).exists(),
        "may_triage": Tenant.objects.for_analyst(request.user).exists(),
    }
    return render(request, "alerts/console.html", context)
