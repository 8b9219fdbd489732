"""`POST /v1/ingest`."""

import logging
from collections.abc import AsyncIterator
from typing import cast

from channels.db import database_sync_to_async
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.request import Request
from rest_framework.views import APIView

from devices.authentication import DeviceKeyAuthentication
from devices.models import DeviceKey
from ingest.batch import check_batch
from ingest.body import read_body
from ingest.fields import normalize_address
from ingest.writer import writer

logger = logging.getLogger("ingest")


class IngestView(APIView):
    """Takes a batch: authenticate, read, check, store, acknowledge. 204 means that all of it is on disk."""

    http_method_names = ["post"]
    authentication_classes = [DeviceKeyAuthentication]

    async def dispatch(  # type: ignore[override]
        self, request: HttpRequest, *args: object, **kwargs: object
    ) -> HttpResponse:
        """DRF's dispatch for an async handler, without content negotiation: a 204 has no content."""
        self.args, self.kwargs = args, kwargs
        self.request = self.initialize_request(request, *args, **kwargs)
        try:
            if self.request.method != "POST":
                raise MethodNotAllowed(str(self.request.method))
            return await self.post(self.request)
        except Exception as error:  # noqa: BLE001  DRF's handler raises what it does not know
            response = self.handle_exception(error)
            if response.status_code == 405:
                response["Allow"] = "POST"
            self._log_refusal(response)
            return response

    async def post(self, request: Request) -> HttpResponse:
        key = await self._authenticate()
        body = await read_body(request._request, body_chunks(request._request), settings.INGEST_MAX_BYTES)
        batch = check_batch(body, key, source_address(request), timezone.now())
        await writer.store(batch)
        return HttpResponse(status=204)

    async def _authenticate(self) -> DeviceKey:
        if DeviceKeyAuthentication().needs_database(self.request):
            await database_sync_to_async(self.perform_authentication)(self.request)
        return cast("DeviceKey", self.request.auth)

    def _log_refusal(self, response: HttpResponse) -> None:
        """The device may never show its answer to anybody, so that staff must find the reason here."""
        key = getattr(self.request, "_auth", None)
        device = f"{key.device.tenant.slug}/{key.device.name}" if key else "unknown device"
        logger.warning("Refused a batch of %s: %s", device, response.content.decode())


def source_address(request: Request) -> str | None:
    """Where the request came from, None where that is no address: a proxy may pass on anything."""
    try:
        return normalize_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return None


async def body_chunks(request: HttpRequest) -> AsyncIterator[bytes]:
    """The body as it arrives (see `ingest.handler`), or whole where Django's own handler has read it."""
    if (receive_chunks := getattr(request, "receive_chunks", None)) is None:
        yield request.body
    else:
        async for chunk in receive_chunks():
            yield chunk
