"""The plain way: a first version with Django REST framework. Same checks, same tables, same durability."""

import hashlib

from django.core.asgi import get_asgi_application
from django.db import transaction
from django.urls import path
from django.utils import timezone

application = get_asgi_application()  # loads the apps, which the imports below need

from django.contrib.auth.models import AnonymousUser  # noqa: E402
from rest_framework.authentication import BaseAuthentication  # noqa: E402
from rest_framework.exceptions import AuthenticationFailed  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

from alerts.models import SecurityAlert  # noqa: E402
from devices.keys import key_digest  # noqa: E402
from devices.models import DeviceKey  # noqa: E402
from ingest.models import IngestBatch, IngestEvent  # noqa: E402
from ingest.serializers import EventSerializer  # noqa: E402

ALERT_FIELDS = ("title", "severity", "source_ip", "destination_ip", "description")


class KeyAuthentication(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[AnonymousUser, DeviceKey]:
        digest = key_digest(request.headers.get("X-Device-Key", ""))
        key = DeviceKey.objects.usable().select_related("device").filter(digest=digest).first()
        if key is None:
            raise AuthenticationFailed
        return AnonymousUser(), key


class PlainView(APIView):
    authentication_classes = [KeyAuthentication]

    def post(self, request: Request) -> Response:
        digest, size = hashlib.sha256(request._request.body).digest(), len(request._request.body)
        serializers = [EventSerializer(data=item) for item in request.data]
        for serializer in serializers:
            serializer.is_valid(raise_exception=True)
        events = [serializer.validated_data for serializer in serializers]
        device, now = request.auth.device, timezone.now()
        common = {"tenant_id": device.tenant_id, "device": device, "received_at": now}
        alerts = [event for event in events if event["kind"] == "security_alert"]
        with transaction.atomic():
            counts = {"event_count": len(events), "alert_count": len(alerts), "byte_count": size}
            batch, is_new = IngestBatch.objects.get_or_create(
                device=device, digest=digest, defaults={**common, **counts}
            )
            if is_new:
                columns = ("kind", "timestamp", "data")
                rows = [IngestEvent(batch=batch, **common, **{c: event[c] for c in columns}) for event in events]
                IngestEvent.objects.bulk_create(rows)
                SecurityAlert.objects.bulk_create(make_alert(batch, event, common) for event in alerts)
        return Response(status=204)


def make_alert(batch: IngestBatch, event: dict, common: dict) -> SecurityAlert:
    known = {name: event["fields"][name] for name in ALERT_FIELDS if name in event["fields"]}
    return SecurityAlert(group_id=0, batch_id=batch.pk, timestamp=event["timestamp"], **common, **known)


urlpatterns = [path("v1/ingest", PlainView.as_view())]
