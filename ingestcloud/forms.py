"""Forms are UTF-8: one that declares another encoding or can't be read is answered 400 before any page runs.

A form in `unicode_escape` can have lone surrogates, on which later code fails: a failed login would not be counted.
Browsers use the encoding of the page, which is UTF-8.
"""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

CHARSETS = ("utf-8", "utf8", "us-ascii")
REFUSED_TEXT = "The body must be UTF-8, and its Content-Type and form well-formed."


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
    except (ValueError, TypeError):  # a part has parameters that the email package can't sort
        return False
    return True


def refused() -> HttpResponse:
    """400 as text for a person; `ProblemDetailsMiddleware` turns it into a problem for a program."""
    return HttpResponse(REFUSED_TEXT, status=400, content_type="text/plain")
