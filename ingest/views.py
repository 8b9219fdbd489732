"""`POST /v1/ingest`."""

import json
import time
from datetime import UTC, datetime
from typing import Any, cast

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from rest_framework.exceptions import APIException, MethodNotAllowed
from rest_framework.request import Request
from rest_framework.views import APIView

from common.headers import InvalidIdempotencyKey, idempotency_key, network_of, source_address
from devices.authentication import DeviceKeyAuthentication, InvalidDeviceKey
from devices.models import DeviceKey
from ingest.backlog import BATCH_OVERHEAD_BYTES, Reservation
from ingest.batch import BadEvents, Batch
from ingest.body import INLINE_BYTES, read_body
from ingest.checking import check_batch, check_leniently, check_quickly
from ingest.errors import StoredInPart
from ingest.headers import prefers_lenient
from ingest.limiter import limiter
from ingest.queries import run_key_query, run_query, wrong_keys
from ingest.refusals import refusal_lines, rejection_queue
from ingest.refused_keys import refused_keys
from ingest.rejections import LEFT_OUT, Rejection, keep_bad_events, name_of_rest
from ingest.storing import store_batch
from ingest.tallies import count_latency, count_refusal
from ingest.turns import run_in_turn

LENIENT_APPLIED = {"Preference-Applied": "handling=lenient"}
KEPT = {400, 403, 413, 415, 422}  # refused for what was sent, not for who sent it or when


class IngestView(APIView):
    """Accepts a batch: authenticate, read, check, store, acknowledge. 204 means that all of it is on disk."""

    http_method_names = ["post"]
    authentication_classes = [DeviceKeyAuthentication]
    parser_classes = []  # the body is read and bounded while it arrives, and parsed only for a good key
    body = b""  # a refusal may come before it is read
    arrived_at = 0.0  # when the last byte of it came
    old_key: DeviceKey | None = None  # that the request came with, if it was revoked or has expired

    async def dispatch(  # type: ignore[override]
        self, request: HttpRequest, *args: object, **kwargs: object
    ) -> HttpResponse:
        """Replaces DRF's `dispatch`, for requests that Django's own handler serves."""
        return await self.answer(request) or HttpResponse(status=204)

    async def answer(self, request: HttpRequest) -> HttpResponse | None:
        """The response, without content negotiation; None for the usual one, a 204 without further headers."""
        self.request = self.initialize_request(request)
        try:
            if request.method != "POST":
                raise MethodNotAllowed(str(request.method))
            return await self.post(self.request)
        except Exception as error:  # noqa: BLE001  DRF's handler re-raises what it does not know
            response = self.handle_exception(error)
            if response.status_code == 405:
                response["Allow"] = "POST"
            self._note_refusal(response)
            return response
        finally:
            # It refers back to the view and the request: each would wait for the garbage collector.
            self.request.parser_context.clear()

    async def post(self, request: Request) -> HttpResponse | None:
        """Raises the refusal of the batch, if any: see `ingest.errors`."""
        key = self._known_key() or await self._authenticate()
        lenient = prefers_lenient(request._request.META)
        with Reservation(key.device_id) as reservation:
            batch, rejected = await self._receive(request._request, key, reservation, lenient=lenient)
            stored: int | None = None  # events of an earlier attempt, if that is known
            if rejected:
                # Before the good ones: a fault in between loses nothing.
                stored = await run_query(keep_bad_events, batch, rejected_events(batch, rejected, self.body))
            reservation.release_bytes()  # the writer counts those that it holds
            try:
                await store_batch(batch)
            except StoredInPart as part:
                stored = part.accepted
        count_latency(time.perf_counter() - self.arrived_at)
        if rejected:
            count_refusal(key.device, LEFT_OUT)
        if rejected or stored is not None:
            return lenient_answer(batch, rejected, stored)
        return HttpResponse(status=204, headers=LENIENT_APPLIED) if lenient else None

    async def _receive(
        self, request: HttpRequest, key: DeviceKey, reservation: Reservation, *, lenient: bool
    ) -> tuple[Batch, BadEvents | None]:
        """Return the batch, and its rejected events, within what the device may send."""
        allowance = limiter.of(key.device)
        try:
            self.body = await read_body(request, settings.INGEST_MAX_BYTES, reservation)
            self.arrived_at = time.perf_counter()
            if allowance:
                allowance.admit(self.body)
            arguments = self.body, key, source_address(request.META), datetime.now(UTC)
            batch = check_quickly(*arguments) if len(self.body) <= INLINE_BYTES else None
            rejected: BadEvents | None = None
            if batch is None:
                reservation.grow(len(self.body) + BATCH_OVERHEAD_BYTES)
                batch, rejected = await check_in_turn(arguments, lenient=lenient)
            batch.idempotency_key = idempotency_key(request.META)
        except APIException as error:
            if allowance and error.status_code in KEPT:
                allowance.charge(getattr(error, "event_count", 0), len(self.body))
            raise
        if allowance:
            allowance.take(batch, rejected.count if rejected else 0)
        return batch, rejected

    def _known_key(self) -> DeviceKey | None:
        """The key if it can be told without a query. Raises InvalidDeviceKey for text that can't be a key."""
        key = cast("list[DeviceKeyAuthentication]", self.request.authenticators)[0].known_key(self.request)
        if key is not None:
            self.request.auth = key
        return key

    async def _authenticate(self) -> DeviceKey:
        source = network_of(self.request.META)
        try:
            await run_key_query(source, self.perform_authentication, self.request)
        except InvalidDeviceKey as refusal:
            self.old_key = refusal.key
            wrong_keys.take(source)
            raise
        return cast("DeviceKey", self.request.auth)

    def _note_refusal(self, response: HttpResponse) -> None:
        """Log a refusal and keep its batch: the device may show its answer to no one, so staff find the reason here."""
        key = cast("DeviceKey | None", getattr(self.request, "_auth", None))  # `auth` would look the key up
        if key is None and response.status_code == 401:
            refused_keys.add(source_address(self.request.META))
            if self.old_key:
                count_refusal(self.old_key.device, f"key_{self.old_key.state}")
            return
        problem = json.loads(response.content)
        if key is not None:
            count_refusal(key.device, problem["code"])
        refusal_lines.add(key.device if key else None, problem)
        if key is not None and response.status_code in KEPT:
            rejection_queue.put(self._refused_body(key, problem))

    def _refused_body(self, key: DeviceKey, problem: dict[str, Any]) -> Rejection:
        return Rejection(
            device=key.device,
            source=source_address(self.request.META),
            received_at=datetime.now(UTC),
            status=problem["status"],
            code=problem["code"],
            detail=problem["detail"],
            errors=problem.get("errors", []),
            body=self.body,
            idempotency_key=self._batch_name() or "",
        )

    def _batch_name(self) -> str | None:
        try:
            return idempotency_key(self.request.META)
        except InvalidIdempotencyKey:
            return None


async def check_in_turn(
    arguments: tuple[bytes, DeviceKey, str | None, datetime], *, lenient: bool
) -> tuple[Batch, BadEvents | None]:
    """Return the batch, and its rejected events. This may take long: it is done in a thread, in the device's turn."""
    device_id = arguments[1].device_id
    if lenient:
        return await run_in_turn(device_id, check_leniently, *arguments)
    return await run_in_turn(device_id, check_batch, *arguments), None


def lenient_answer(batch: Batch, rejected: BadEvents | None, stored: int | None) -> HttpResponse:
    """How much of a lenient batch is stored: its good events, or what an earlier attempt `stored`.

    That may be more or less, because a module was switched in between; then the errors are not those of that attempt.
    """
    total = len(batch.events) + (rejected.count if rejected else 0)
    accepted = len(batch.events) if stored is None else stored
    if accepted == total:
        return HttpResponse(status=204, headers=LENIENT_APPLIED)
    errors = rejected.errors if rejected and accepted == len(batch.events) else []
    answer = {"accepted": accepted, "rejected": total - accepted, "errors": errors}
    return HttpResponse(json.dumps(answer), content_type="application/json", headers=LENIENT_APPLIED)


def rejected_events(batch: Batch, rejected: BadEvents, body: bytes) -> Rejection:
    """The rejected events of a lenient batch: a body of their own, with the errors by index in that body.

    If there are no others, nothing is stored under the name and the digest of the batch. So they are kept as it came:
    then it is a repeat, whether staff or its device send it first.
    """
    is_part = bool(batch.events)
    places: dict[object, int] = {}
    return Rejection(
        device=batch.key.device,
        source=batch.source,
        received_at=batch.received_at,
        status=200,
        code=LEFT_OUT,
        detail=f"{rejected.count} of {rejected.count + len(batch.events)} events were not stored.",
        errors=[e | {"index": places.setdefault(e["index"], len(places))} for e in rejected.errors],
        body=rejected.body if is_part else body,
        idempotency_key=name_of_rest(batch) if is_part else batch.idempotency_key or "",
        batch_digest=batch.digest if is_part else None,
        good_events=len(batch.events) if is_part else None,
    )
