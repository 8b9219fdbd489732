"""HTTP/1.1 as uvicorn and httptools speak it, with bounds: on heads of requests, on silence, and on connections.

httptools keeps of a head whatever comes, and uvicorn waits for it for ever. (h11 has a bound, and takes twice the time
of a small batch.) The bounds cost nothing per request but a look at two attributes.
"""

import asyncio
import json
import logging
import resource
import weakref
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from common.loops import PerLoop
from common.problems import CONTENT_TYPE

logger = logging.getLogger(__name__)

HEAD_BYTES = 64 * 1024  # of a request: its line and headers
HEAD_SECONDS = 10.0  # that a head may take, from its first byte or from the opening of its connection
LOOK_EVERY_SECONDS = 2.0
MAX_CONNECTIONS = 4000
RESERVED_FILES = 200  # of a process: the database, the sockets of the channel layer, logs


def _problem(status: HTTPStatus, code: str, detail: str) -> bytes:
    """A whole response, after which the connection is closed."""
    body = json.dumps(
        {"type": "about:blank", "title": status.phrase, "status": status, "code": code, "detail": detail}
    ).encode()
    retry = "retry-after: 5\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {CONTENT_TYPE}\r\n"
        f"x-content-type-options: nosniff\r\n{retry}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


TOO_LARGE = _problem(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "headers_too_large",
    f"A request's headers have {HEAD_BYTES} bytes at most.",
)
TOO_SLOW = _problem(
    HTTPStatus.REQUEST_TIMEOUT, "headers_too_slow", "The headers of the request did not arrive in time."
)
TOO_MANY = _problem(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", "The server has no connection to spare.")


def connections_at_most() -> int:
    """MAX_CONNECTIONS, or what the limit on open files leaves. That limit is raised as far as it may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + RESERVED_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(100, most - RESERVED_FILES)


class BoundedProtocol(HttpToolsProtocol):
    """A connection. `head_since` is when the head that is on its way began, None while there is none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.head_since: float | None = None
        self.head_bytes = 0
        self.in_head = True
        self.heads = 0  # that are whole
        self.answering: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        guard = guard_of(self.loop)
        if len(self.connections) > guard.most:
            self._end(TOO_MANY)
            return
        self.head_since = self.loop.time()
        guard.watch(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn tells the last request of a pipeline; those before it would answer nobody, with an error each."""
        super().connection_lost(exc)
        for cycle in (self.answering, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.answering = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self.transport.is_closing():
            return  # the client has gone, and what it sent before is on its way
        began_in_head, heads = self.in_head, self.heads
        super().data_received(data)
        if not began_in_head or self.heads != heads:
            return
        # All of it belongs to a head that is still on its way.
        self.head_bytes += len(data)
        if self.head_bytes > HEAD_BYTES:
            self._end(TOO_LARGE)
        elif self.head_since is None:
            self.head_since = self.loop.time()

    def on_headers_complete(self) -> None:
        self.in_head, self.head_since, self.head_bytes = False, None, 0
        self.heads += 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self.in_head = True
        super().on_message_complete()

    def end_slow_head(self, now: float) -> None:
        if self.head_since is not None and now - self.head_since > HEAD_SECONDS and not self.transport.is_closing():
            self._end(TOO_SLOW if self.head_bytes else b"")

    def _end(self, answer: bytes) -> None:
        if answer and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(answer)
        self.transport.close()


class Guard:
    """Looks at the connections of a loop now and then: a timer for each would cost more than it saves."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.most = connections_at_most()
        self._loop = loop
        self._watched: weakref.WeakSet[BoundedProtocol] = weakref.WeakSet()
        self._look()

    def watch(self, connection: BoundedProtocol) -> None:
        self._watched.add(connection)

    def _look(self) -> None:
        now = self._loop.time()
        for connection in list(self._watched):
            connection.end_slow_head(now)
        self._loop.call_later(LOOK_EVERY_SECONDS, self._look)


guard_of = PerLoop(Guard).of
