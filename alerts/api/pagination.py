"""Pages of long lists: each answer has the address of the next page."""

from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request

from alerts.api.filters import INT64_MAX
from tenants.api import validated


class PageSerializer(serializers.Serializer):
    """Where a page begins, and how many rows it has at most."""

    cursor = serializers.IntegerField(required=False, min_value=0, max_value=INT64_MAX, default=INT64_MAX)
    limit = serializers.IntegerField(required=False, min_value=1, max_value=200, default=100)


def page_of(request: Request) -> tuple[int, int]:
    """The number below which the page begins, and the number of its rows. Raises InvalidRequest."""
    given = validated(PageSerializer, request.query_params)
    return given["cursor"], given["limit"]


def next_address(request: Request, cursor: int | None) -> str | None:
    """The address of the same list below `cursor`, None after the last page."""
    if cursor is None:
        return None
    query = request.query_params.copy()
    query["cursor"] = str(cursor)
    return f"{request.path}?{query.urlencode()}"


def page_by_id(request: Request, rows: QuerySet, represent: Callable[[Any], dict[str, object]]) -> dict[str, object]:
    """The page of `rows` that `request` asks for, the newest first. Raises InvalidRequest."""
    below, limit = page_of(request)
    found = list(rows.filter(pk__lt=below).order_by("-pk")[: limit + 1])
    page = found[:limit]
    return {
        "results": [represent(row) for row in page],
        "next": next_address(request, page[-1].pk if len(found) > limit else None),
    }
