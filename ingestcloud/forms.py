"""Forms are UTF-8: before any page, whatever declares something else or can't be read is refused as a 400.

A form in `unicode_escape` has lone surrogates, on which what comes later fails: a failed login would not be counted.
Browsers send the encoding of the page, which is UTF-8.
"""

from collections.abc import Callable, Mapping
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse

CHARSETS = ("utf-8", "utf8", "us-ascii")
REFUSED_TEXT = "The body must be UTF-8, and its Content-Type and form well-formed."


class Request(ASGIRequest):
    """Django's, for which a Content-Type that it can't parse would be an uncaught error."""

    def _set_content_type_params(self, meta: Mapping[str, Any]) -> None:
        try:
            super()._set_content_type_params(meta)  # type: ignore[misc]
        except (ValueError, TypeError):
            self.content_type, self.content_params = "", {"charset": "unknown"}


class FormMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request) if _is_readable(request) else refused()


def _is_readable(request: HttpRequest) -> bool:
    if (request.content_params or {}).get("charset", CHARSETS[0]).lower() not in CHARSETS:
        return False
    try:
        request.POST  # noqa: B018  parsed here
    except (ValueError, TypeError):  # parameters of a part that the email package can't sort
        return False
    return True


def refused() -> HttpResponse:
    """400 for a person, or by `ProblemDetailsMiddleware` for a program."""
    return HttpResponse(REFUSED_TEXT, status=400, content_type="text/plain")
