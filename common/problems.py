"""All errors for API clients in one shape: RFC 9457 `application/problem+json`.

A body is `{"type": "about:blank", "title", "status", "code", "detail"}` and, for a batch with
bad events, `"errors": [{"index", "field", "code", "detail"}]`. `code` is stable, `detail` is for people.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, DataError, InterfaceError
from django.http import Http404, HttpRequest, HttpResponse
from django.views.defaults import bad_request
from rest_framework import exceptions

from common.seldom import SeldomLine

database_failed = SeldomLine(logging.getLogger(__name__), logging.ERROR)

CONTENT_TYPE = "application/problem+json"
API_PREFIXES = ("/v1/", "/api/")


class StorageUnavailable(exceptions.APIException):
    """The database is not responding; the client should send the same bytes again."""

    status_code = 503
    default_code = "storage_unavailable"
    # A commit whose answer was lost may have stored it.
    default_detail = "The database did not answer as it should. Send the same bytes again: nothing is stored twice."
    wait = 5  # seconds: long enough for a database to fail over, short enough for an alert


class Conflict(exceptions.APIException):
    """The request contradicts what is stored."""

    status_code = 409

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail, code)


RENAMED = {413: "Content Too Large", 422: "Unprocessable Content"}  # Python before 3.13 has their older names


def title_of(status: int) -> str:
    """What RFC 9110 calls a status."""
    return RENAMED.get(status) or HTTPStatus(status).phrase


def problem_body(status: int, code: str, detail: str, errors: list[dict[str, object]] | None = None) -> str:
    """An error as JSON; `errors` names the bad events of a batch."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": title_of(status),
        "status": status,
        "code": code,
        "detail": detail,
    }
    if errors is not None:
        body["errors"] = errors
    return json.dumps(body)


def problem(
    status: int,
    code: str,
    detail: str,
    errors: list[dict[str, object]] | None = None,
    headers: dict[str, str] | None = None,
) -> HttpResponse:
    """An error as a response."""
    body = problem_body(status, code, detail, errors)
    return HttpResponse(body, status=status, content_type=CONTENT_TYPE, headers=headers)


def shape_errors(
    errors: Mapping[str, Sequence[exceptions.ErrorDetail]], index: int | None = None
) -> Iterator[dict[str, Any]]:
    """A serializer's errors, by field, as members of `errors`. `index` is the position of the event in its batch."""
    for field, details in errors.items():
        field_name = None if field == "non_field_errors" else field
        for detail in details:
            yield {"index": index, "field": field_name, "code": detail.code, "detail": str(detail)}


def exception_handler(exc: Exception, context: dict[str, object]) -> HttpResponse | None:
    """DRF's `EXCEPTION_HANDLER`: answers its own exceptions, Django's, and those of a failing database.

    Any other exception is a fault of ours: returning `None` lets it be raised and logged.
    """
    if isinstance(exc, Http404):
        exc = exceptions.NotFound()
    elif isinstance(exc, PermissionDenied):
        exc = exceptions.PermissionDenied()
    elif isinstance(exc, DatabaseError | InterfaceError):
        # Whatever the reason, such as a full disk or a table being migrated, the client's bytes are not to blame.
        database_failed.write("The database failed: %r", exc)
        exc = StorageUnavailable()
    if not isinstance(exc, exceptions.APIException):
        return None
    headers = dict(getattr(exc, "headers", {}))
    if auth_header := getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = auth_header
    if wait := getattr(exc, "wait", None):
        headers["Retry-After"] = str(int(wait))
    code = getattr(exc.detail, "code", exc.default_code)
    return problem(exc.status_code, code, str(exc.detail), getattr(exc, "errors", None), headers)


# What to say for the statuses that Django and its middleware answer with; `HTTPStatus` has the others.
DETAILS = {
    400: "The request can't be understood, or this site does not answer to the name in its Host header.",
    403: "This is not allowed.",
    404: "There is nothing at this address.",
    405: "This address does not accept this method.",
    413: "The body is larger than this address accepts.",
    500: "Something failed on our side. It has been logged.",
}


class ProblemDetailsMiddleware:
    """Turns errors that come from Django or a view itself into problems if the client is a program.

    A value that no database can hold (a NUL or a thirty-digit number in a filter) is the client's error: a 400.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.status_code < 400 or response.get("Content-Type") == CONTENT_TYPE or not is_api(request):
            return response
        status = response.status_code
        code = title_of(status).lower().replace(" ", "_")
        kept = {name: value for name, value in response.items() if name not in ("Content-Type", "Content-Length")}
        return problem(status, code, DETAILS.get(status, HTTPStatus(status).description), headers=kept)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        # SQLite's driver raises OverflowError for a number.
        return bad_request(request, exception) if isinstance(exception, DataError | OverflowError) else None


def is_api(request: HttpRequest) -> bool:
    """Whether the client is a program: judged by the path, or because it asks for JSON and not for a page."""
    accept = request.headers.get("Accept", "")
    return request.path_info.startswith(API_PREFIXES) or ("json" in accept and "html" not in accept)
