"""How errors are described, to devices and to people."""

from typing import Any

from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers

from common.problems import CONTENT_TYPE


class ErrorSerializer(serializers.Serializer):
    """What is wrong with one event, or with a request that is not a batch."""

    index = serializers.IntegerField(allow_null=True, help_text="Which event of the batch, from 0.")
    field = serializers.CharField(allow_null=True)
    code = serializers.CharField(help_text="Stable, for programs.")
    detail = serializers.CharField(help_text="For people; it may change.")


class ProblemSerializer(serializers.Serializer):
    """An error, as in RFC 9457."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField(help_text="Stable, for programs.")
    detail = serializers.CharField(help_text="For people; it may change.")
    errors = ErrorSerializer(many=True, required=False)  # type: ignore[assignment]  # DRF's own has another use


def problems(**statuses: str) -> dict[Any, Any]:
    """Problem responses, from keyword arguments such as `_400="What it means."`."""
    return {
        (int(name[1:]), CONTENT_TYPE): OpenApiResponse(ProblemSerializer, description=description)
        for name, description in statuses.items()
    }
