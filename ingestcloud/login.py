"""What whoever has guessed too often gets in place of the login."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def locked_out(request: HttpRequest, response: HttpResponse | None, credentials: dict[str, Any]) -> HttpResponse:
    """429, with the time to wait."""
    seconds = str(int(settings.AXES_COOLOFF_TIME.total_seconds()))
    context = {"limit": settings.AXES_FAILURE_LIMIT}
    page = render(request, "registration/locked_out.html", context, status=429)
    page["Retry-After"] = seconds
    return page
