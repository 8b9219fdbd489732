"""The base of the API for people: who calls it, and how their bad requests are answered."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import APIException, ErrorDetail
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from common.problems import shape_errors
from common.requests import BoundedJSONParser, JSONAnyway


class InvalidRequest(APIException):
    """400: `errors` names every bad field."""

    status_code = 400
    default_code = "invalid_request"
    default_detail = "The request is not valid. Nothing was changed."

    def __init__(self, errors: Mapping[str, Any]) -> None:
        super().__init__()
        self.errors = list(shape_errors({field: list(details_in(given)) for field, given in errors.items()}))


def details_in(errors: Any) -> Iterator[ErrorDetail]:
    """All errors of a field, those of the parts of a list or an object included."""
    if isinstance(errors, ErrorDetail):
        yield errors
        return
    for part in errors.values() if isinstance(errors, Mapping) else errors:
        yield from details_in(part)


class SessionLogin(SessionAuthentication):
    """The session of the pages. Requests that change something need the page's CSRF token in `X-CSRFToken`.

    Unlike DRF's own, a request without a session gets a 401, by which a page knows that its session has ended.
    """

    def authenticate_header(self, request: Request) -> str:
        return "Session"


class PersonView(APIView):
    """A view for people who are logged in. Like every page, it acts as its user in the database."""

    authentication_classes = [SessionLogin]
    permission_classes = [IsAuthenticated]
    parser_classes = [BoundedJSONParser]
    content_negotiation_class = JSONAnyway


def validated(serializer: type[BaseSerializer], data: Any, **kwargs: Any) -> Any:
    """What `serializer` makes of `data`. Raises InvalidRequest."""
    checked = serializer(data=data, **kwargs)
    if not checked.is_valid():
        raise InvalidRequest(cast("Mapping[str, Any]", checked.errors))
    return checked.validated_data
