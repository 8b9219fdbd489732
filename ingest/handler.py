"""The short path of `POST /v1/ingest`: from ASGI straight to the view.

Django's own handler reads the whole body before anything can refuse it, and starts a thread and a task for each
request; the middleware is for pages. docs/architecture.md has the figures.
"""

import asyncio
import logging
from typing import Any, cast

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse

from common.asgi import Receive, Send
from common.deadlines import deadlines_of
from common.problems import problem
from ingest.backlog import BATCH_OVERHEAD_BYTES, Reservation
from ingest.errors import BodyTooLarge, BodyTooSlow, ClientDisconnected
from ingest.views import IngestView

logger = logging.getLogger(__name__)

BODY_BYTES_PER_SECOND = 500  # slowest accepted rate of a body after INGEST_BODY_SECONDS: an uplink may be slow
MAX_BODY_SECONDS = 300.0  # for any body, however large
SILENCE_SECONDS = 10.0  # longest time without a byte of the body
META_NAMES = {
    b"content-encoding": "HTTP_CONTENT_ENCODING",
    b"content-length": "CONTENT_LENGTH",
    b"content-type": "CONTENT_TYPE",
    b"idempotency-key": "HTTP_IDEMPOTENCY_KEY",
    b"prefer": "HTTP_PREFER",
    b"x-device-key": "HTTP_X_DEVICE_KEY",
}
NO_CONTENT = {"type": "http.response.start", "status": 204, "headers": []}
NO_BODY = {"type": "http.response.body", "body": b""}


class StreamedRequest(ASGIRequest):
    """A request whose body is still arriving, and is awaited until a deadline.

    Of the headers, `META` has only `META_NAMES`. ASGIRequest's own constructor takes a tenth of our share of a request.
    """

    def __init__(self, scope: dict[str, Any], receive: Receive) -> None:
        self.scope, self._receive = scope, receive
        self.method, self.path = scope["method"], scope["path"]
        client = scope.get("client")
        meta = {"REMOTE_ADDR": client[0] if client else ""}
        for name, value in scope["headers"]:
            if key := META_NAMES.get(name):
                text = value.decode("latin1")
                meta[key] = f"{meta[key]},{text}" if key in meta else text  # as in RFC 9110, section 5.3
        self.META = meta
        self.content_type = meta.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        self._is_too_slow = False

    async def receive_body(self, limit: int, reservation: Reservation) -> bytes:
        """Return the body, which `reservation` covers as it grows.

        Raises BodyTooLarge as soon as it is over `limit` bytes, BodyTooSlow, Overloaded, and ClientDisconnected if it
        ends early.
        """
        loop = asyncio.get_running_loop()
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        began = loop.time()
        self.deadline = began + min(settings.INGEST_BODY_SECONDS, SILENCE_SECONDS)
        deadlines = deadlines_of(loop)
        deadlines.add(self)
        try:
            return await self._receive_chunks(limit, reservation, began)
        except asyncio.CancelledError:
            if not self._is_too_slow:
                raise
            self._task.uncancel()
            raise BodyTooSlow from None
        finally:
            deadlines.remove(self)

    async def _receive_chunks(self, limit: int, reservation: Reservation, began: float) -> bytes:
        loop = asyncio.get_running_loop()
        chunks, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            chunk = message.get("body", b"")
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge(limit)
            if not message.get("more_body", False):
                return b"".join(chunks)
            reservation.grow(size + BATCH_OVERHEAD_BYTES)
            allowed = min(settings.INGEST_BODY_SECONDS + size / BODY_BYTES_PER_SECOND, MAX_BODY_SECONDS)
            self.deadline = min(began + allowed, loop.time() + SILENCE_SECONDS)

    def give_up(self) -> None:
        self._is_too_slow = True
        self._task.cancel()


class IngestHandler:
    """The ASGI application for `INGEST_PATH`."""

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            response = await IngestView().answer(StreamedRequest(scope, receive))
        except ClientDisconnected:
            return
        except Exception:
            logger.exception("Unexpected error in the ingest path")
            response = problem(500, "server_error", "Something failed on our side. It has been logged.")
        await send_response(response, send)


async def send_response(response: HttpResponse | None, send: Send) -> None:
    """Send `response`, or a 204 in place of None, to an ASGI server. What it cannot send is logged, not raised."""
    try:
        if response is None:
            await send(NO_CONTENT)
            await send(NO_BODY)
            return
        if response.status_code == 204:
            del response["Content-Type"]  # there is no content
        else:
            response["Content-Length"] = str(len(response.content))
            response["X-Content-Type-Options"] = "nosniff"
        headers = [(name.lower().encode("latin1"), value.encode("latin1")) for name, value in response.items()]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.content})
    except Exception as error:  # noqa: BLE001  each server has exceptions of its own
        logger.warning("An answer could not be sent: %r", error)
