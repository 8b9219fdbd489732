"""Pages of long lists: each answer has the address of the next page."""

from typing import Any

from rest_framework import serializers

from tenants.api import validated

INT64_MAX = 2**63 - 1


class PageSerializer(serializers.Serializer):
    """Where a page begins, and how many rows it has at most."""

    cursor = serializers.IntegerField(required=False, min_value=0, max_value=INT64_MAX, default=INT64_MAX)
    limit = serializers.IntegerField(required=False, min_value=1, max_value=200, default=100)


def page_of(request: Any) -> tuple[int, int]:
    """The number below which the page begins, and the number of its rows. Raises InvalidRequest."""
    given = validated(PageSerializer, request.query_params)
    return given["cursor"], given["limit"]


def next_address(request: Any, cursor: int | None) -> str | None:
    """The address of the same list below `cursor`, None after the last page."""
    if cursor is None:
        return None
    query = request.query_params.copy()
    query["cursor"] = cursor
    return f"{request.path}?{query.urlencode()}"
