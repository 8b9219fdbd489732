"""`POST /v1/ingest`."""

import logging
from typing import cast

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.request import Request
from rest_framework.views import APIView

from devices.authentication import DeviceKeyAuthentication
from devices.models import DeviceKey
from ingest.backlog import Share
from ingest.batch import check_batch
from ingest.body import read_body
from ingest.fields import normalize_address
from ingest.limiter import limiter
from ingest.questions import ask_database
from ingest.writer import writer

logger = logging.getLogger("ingest")


class IngestView(APIView):
    """Takes a batch: authenticate, read, check, store, acknowledge. 204 means that all of it is on disk."""

    http_method_names = ["post"]
    authentication_classes = [DeviceKeyAuthentication]
    parser_classes = []  # the body is read and bounded while it arrives, and parsed only for a good key

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
        finally:
            # It leads back to the view and the request: each would wait for the garbage collector.
            self.request.parser_context.clear()

    async def post(self, request: Request) -> HttpResponse:
        key = await self._authenticate()
        with Share() as share:
            body = await read_body(request._request, settings.INGEST_MAX_BYTES, share)
            batch = check_batch(body, key, source_address(request), timezone.now())
        limiter.take(batch)
        await writer.store(batch)
        return HttpResponse(status=204)

    async def _authenticate(self) -> DeviceKey:
        """DRF's, but a key that is known needs no thread."""
        known = cast("list[DeviceKeyAuthentication]", self.request.authenticators)[0].known_key(self.request)
        if known is None:
            await ask_database(self.perform_authentication, self.request)
        else:
            self.request.auth = known
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
