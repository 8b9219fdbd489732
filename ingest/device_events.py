"""`GET /api/v1/devices/{id}/events`: what a device sent around a moment."""

from datetime import UTC, datetime, timedelta

from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from devices.models import Device
from ingest.models import IngestEvent, Kind
from tenants.api import PersonView, validated

AROUND = timedelta(minutes=5)  # before and after the moment
MAX_EVENTS = 100
EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class AroundSerializer(serializers.Serializer):
    around = serializers.DateTimeField(help_text="A moment by the device's clock.")


class DeviceEventsView(PersonView):
    """The events of a device within AROUND of a moment, by its own clock, in that order; at most MAX_EVENTS."""

    def get(self, request: Request, pk: int) -> Response:
        device = get_object_or_404(Device.objects.for_user(request.user), pk=pk)
        around = validated(AroundSerializer, request.query_params)["around"]
        events = IngestEvent.objects.filter(
            tenant=device.tenant_id, device=device, kind__in=Kind.values, timestamp__range=window(around)
        )
        rows = events.order_by("timestamp", "pk").values("id", "kind", "timestamp", "received_at", "data")
        return Response({"results": list(rows[:MAX_EVENTS])})


def window(moment: datetime) -> tuple[datetime, datetime]:
    """The time around `moment`, as far as there is such a time."""
    return max(moment, EARLIEST + AROUND) - AROUND, min(moment, LATEST - AROUND) + AROUND
