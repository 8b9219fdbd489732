"""How the API reads requests."""

from typing import Any

from rest_framework.exceptions import ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import JSONParser
from rest_framework.request import Request


class BoundedJSONParser(JSONParser):
    """Like DRF's, which would answer 500 to a body that is nested too deeply."""

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse(*args, **kwargs)
        except RecursionError as error:
            raise ParseError("The body is nested too deeply.") from error


class JSONAnyway(DefaultContentNegotiation):
    """Ignores Accept, as the ingest path does. There is one kind of answer, and refusing to send it helps no client."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type
