"""`POST /v1/ingest`."""

import json
import logging
from datetime import datetime
from typing import Any, cast

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.request import Request
from rest_framework.views import APIView

from devices.authentication import DeviceKeyAuthentication
from devices.models import DeviceKey
from ingest.backlog import Share
from ingest.batch import Batch, Rejected, check_batch, check_leniently, dump
from ingest.body import read_body
from ingest.headers import idempotency_key, prefers_lenient, source_address
from ingest.limiter import limiter
from ingest.questions import ask_database
from ingest.refused_keys import refused_keys
from ingest.rejections import Rejection, keep
from ingest.writer import writer

logger = logging.getLogger("ingest")

LOGGED = 2000  # characters of an answer: one may name a thousand events
KEPT = {400, 403, 413, 415, 422}  # a refusal for what was sent, and not for who or when


class IngestView(APIView):
    """Takes a batch: authenticate, read, check, store, acknowledge. 204 means that all of it is on disk."""

    http_method_names = ["post"]
    authentication_classes = [DeviceKeyAuthentication]
    parser_classes = []  # the body is read and bounded while it arrives, and parsed only for a good key
    body = b""

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
            await self._note_refusal(response)
            return response
        finally:
            # It leads back to the view and the request: each would wait for the garbage collector.
            self.request.parser_context.clear()

    async def post(self, request: Request) -> HttpResponse:
        key = await self._authenticate()
        with Share() as share:
            self.body = await read_body(request._request, settings.INGEST_MAX_BYTES, share)
            if prefers_lenient(self.request._request.META):
                return await self._post_leniently(key)
            batch = check_batch(self.body, key, source_address(self.request._request.META), timezone.now())
        await self._store(batch)
        return HttpResponse(status=204)

    async def _post_leniently(self, key: DeviceKey) -> HttpResponse:
        """204 where all events are stored, else 200 with the errors of those that are not, and are kept as rejected."""
        batch, rejected = check_leniently(self.body, key, source_address(self.request._request.META), timezone.now())
        if rejected:
            await ask_database(keep, self._rejected_events(batch, rejected))  # first: a fault in between loses nothing
        await self._store(batch)
        headers = {"Preference-Applied": "handling=lenient"}
        if not rejected:
            return HttpResponse(status=204, headers=headers)
        counts = {"accepted": len(batch.events), "rejected": len(rejected.items)}
        body = json.dumps(counts | {"errors": rejected.errors})
        return HttpResponse(body, content_type="application/json", headers=headers)

    async def _store(self, batch: Batch) -> None:
        batch.idempotency_key = idempotency_key(self.request._request.META)
        limiter.take(batch)
        await writer.store(batch)

    async def _authenticate(self) -> DeviceKey:
        """DRF's, but a key that is known needs no thread."""
        known = cast("list[DeviceKeyAuthentication]", self.request.authenticators)[0].known_key(self.request)
        if known is None:
            await ask_database(self.perform_authentication, self.request)
        else:
            self.request.auth = known
        return cast("DeviceKey", self.request.auth)

    def _rejected_events(self, batch: Batch, rejected: Rejected) -> Rejection:
        """Those of a lenient batch that are not stored: a body of their own, with the errors by index in that."""
        places: dict[object, int] = {}
        errors = [e | {"index": places.setdefault(e["index"], len(places))} for e in rejected.errors]
        body = dump(rejected.items)
        return Rejection(
            device=batch.key.device,
            source=batch.source,
            received_at=batch.received_at,
            status=200,
            code="invalid_events",
            detail=f"{len(rejected.items)} of {len(rejected.items) + len(batch.events)} events were not stored.",
            errors=errors,
            body=body,
            byte_count=len(body),
        )

    async def _note_refusal(self, response: HttpResponse) -> None:
        """The device may never show its answer to anybody, so that staff must find the reason here."""
        key = cast("DeviceKey | None", getattr(self.request, "_auth", None))
        if key is None and response.status_code == 401:
            refused_keys.add()
            return
        device = f"{key.device.tenant.slug}/{key.device.name}" if key else "unknown device"
        logger.warning("Refused a batch of %s: %s", device, response.content.decode()[:LOGGED])
        if key is None or response.status_code not in KEPT:
            return
        try:
            await ask_database(keep, self._refused_body(key, timezone.now(), json.loads(response.content)))
        except Exception:  # the device has its answer all the same
            logger.exception("A refused batch could not be kept")

    def _refused_body(self, key: DeviceKey, now: datetime, problem: dict[str, Any]) -> Rejection:
        return Rejection(
            device=key.device,
            source=source_address(self.request._request.META),
            received_at=now,
            status=problem["status"],
            code=problem["code"],
            detail=problem["detail"],
            errors=problem.get("errors", []),
            body=self.body,
            byte_count=len(self.body),
        )
