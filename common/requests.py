"""Requests as all our endpoints get them."""

from collections.abc import Mapping
from typing import Any

from django.core.handlers.asgi import ASGIRequest


class Request(ASGIRequest):
    """Django's request, but a Content-Type that can't be parsed does not become an uncaught error.

    No endpoint accepts the type and the charset that it gets then.
    """

    def _set_content_type_params(self, meta: Mapping[str, Any]) -> None:
        try:
            super()._set_content_type_params(meta)  # type: ignore[misc]
        except (ValueError, TypeError):
            self.content_type, self.content_params = "unreadable", {"charset": "unknown"}
