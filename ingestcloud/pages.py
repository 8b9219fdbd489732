"""What happens before a page runs: its body is read, whole and in time, and a limit bounds how many pages run at once.

Each page takes a thread and a database connection, and some of both must always be free for devices.
"""

import asyncio
import logging
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils import timezone

from common.asgi import Receive, Send
from common.loops import PerLoop
from common.problems import API_PREFIXES, problem
from devices.paths import REGISTER_PATH
from ingest.handler import send_response
from ingestcloud.forms import Request
from ingestcloud.paths import HEALTH_PATHS

logger = logging.getLogger(__name__)

PAGES_AT_ONCE = 8
REGISTRATIONS_AT_ONCE = 2
MAX_WAITING = 100  # requests that wait for a slot, of pages and of registrations each
TURN_SECONDS = 5.0  # how long such a request waits
SILENCE_SECONDS = 10.0  # without a byte of the body, after which the request fails
BODY_SECONDS = 300.0  # for the whole body, however steadily it comes
CLOSE_HEADERS = {"Connection": "close"}  # the rest of the body must not be read as the next request


class Slots:
    """Limits how many requests run at once, and how many wait."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._waiting = 0

    async def acquire(self) -> bool:
        """Return whether a slot was free in time. If so, the caller must release it."""
        if self._waiting >= MAX_WAITING:
            return False
        self._waiting += 1
        try:
            async with asyncio.timeout(TURN_SECONDS):
                return await self._free.acquire()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1

    def release(self) -> None:
        self._free.release()


_pages = PerLoop(lambda loop: Slots(PAGES_AT_ONCE))
_registrations = PerLoop(lambda loop: Slots(REGISTRATIONS_AT_ONCE))


class PageHandler(ASGIHandler):
    """Django's, but with our own request, and a page's database connection is released once the page is rendered.

    Django releases it once the page is sent: late if the client reads slowly, and never if sending fails.
    """

    request_class = Request

    async def run_get_response(self, request: HttpRequest) -> HttpResponseBase:
        response = await super().run_get_response(request)
        await sync_to_async(close_old_connections)()
        return response


class Pages:
    """The ASGI application for every path except the ingest path, in front of Django's."""

    def __init__(self, django: Any) -> None:
        self._django = django

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        path = scope["path"]
        scope = scope | {"arrived_at": timezone.now()}
        if refusal := refuse_body(scope):
            return await send_response(refusal, send)
        try:
            whole = await received(scope, receive)
        except TimeoutError:
            answer = problem(408, "body_too_slow", "The body did not arrive in time.", headers=CLOSE_HEADERS)
            return await send_response(answer, send)
        if whole is None:
            return None
        if path in HEALTH_PATHS:  # they have threads of their own
            return await self._answer(scope, whole, send)
        slots = (_registrations if path == REGISTER_PATH else _pages).of(asyncio.get_running_loop())
        if not await slots.acquire():
            return await send_response(busy(path), send)
        return await self._run(slots, scope, whole, send)

    async def _run(self, slots: Slots, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Release the slot once the answer starts, because the client may read it slowly."""
        is_held = True

        async def send_and_release(message: dict[str, Any]) -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                slots.release()
            await send(message)

        try:
            await self._answer(scope, receive, send_and_release)
        finally:
            if is_held:
                slots.release()

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Let Django finish the answer even if the server can't send it; otherwise files would stay open."""
        is_lost = False

        async def send_unless_lost(message: dict[str, Any]) -> None:
            nonlocal is_lost
            if is_lost:
                return
            try:
                await send(message)
            except Exception as error:  # noqa: BLE001  each server has its own exceptions
                is_lost = True
                logger.warning("A page could not be sent: %r", error)

        await self._django(scope, receive, send_unless_lost)


async def received(scope: dict[str, Any], receive: Receive) -> Receive | None:
    """Read the whole body and return a `receive` for it, or None if the client has left. Raises TimeoutError."""
    if not any(name == b"content-length" and value.strip(b"0") for name, value in scope["headers"]):
        return receive
    chunks: list[bytes] = []
    async with asyncio.timeout(BODY_SECONDS):
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                message = await receive()
            if message["type"] != "http.request":
                return None
            chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                break
    first: dict[str, Any] | None = {"type": "http.request", "body": b"".join(chunks), "more_body": False}

    async def receive_again() -> dict[str, Any]:
        nonlocal first
        if first is not None:
            message, first = first, None
            return message
        return await receive()

    return receive_again


def refuse_body(scope: dict[str, Any]) -> HttpResponse | None:
    """Refuse a large body, because Django would write all of it to disk before a page could refuse it."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"")
    if b"transfer-encoding" in headers:
        return problem(
            411, "length_required", "This address accepts no body without a Content-Length.", headers=CLOSE_HEADERS
        )
    # Twenty digits are enough for any limit, and `int` refuses thousands.
    if length.isdigit() and int(length[:20]) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        return problem(413, "body_too_large", "The body is larger than this address accepts.", headers=CLOSE_HEADERS)
    return None


def busy(path: str) -> HttpResponse:
    detail = "The server is busy with other pages. Try again in a few seconds."
    headers = {"Retry-After": "5"}
    if path.startswith(API_PREFIXES):
        return problem(503, "busy", detail, headers=headers)
    return HttpResponse(detail, status=503, content_type="text/plain", headers=headers)
