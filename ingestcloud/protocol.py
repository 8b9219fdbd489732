"""HTTP/1.1 by uvicorn and httptools, with bounds on heads, on chunks, on silence, and on answers that are not read.

httptools buffers a head of any size, and uvicorn waits for it forever. (h11 has a bound, but takes twice as long for a
small batch.) The bounds cost a small request only a look at a few attributes. `guard.py` bounds how many connections
there are, and ends those that are overdue.
"""

import asyncio
import logging
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from common.seldom import SeldomLine
from ingestcloud.bounds import (
    CHUNK_BYTES,
    HEAD_BYTES,
    HEAD_SECONDS,
    INVALID,
    LATE_BYTES,
    LINGER_SECONDS,
    MAX_HEADERS,
    SMALL,
    SMALL_CHUNKS,
    STALLED_SECONDS,
    TOO_LARGE,
    TOO_MANY,
    TOO_SLOW,
    Refused,
)
from ingestcloud.guard import guard_of

invalid_requests = SeldomLine(logging.getLogger(__name__), logging.WARNING)


class AnswerTransport:
    """The answer's transport if the body did not arrive whole at once: closing it waits for the rest of the body."""

    def __init__(self, connection: "BoundedProtocol") -> None:
        self._connection = connection
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        if self._connection.in_head:
            self._connection.transport.close()
        else:
            self._connection.linger()


class BoundedProtocol(HttpToolsProtocol):
    """A connection. `head_since` is when the head now arriving began, or the wait for one; None while there is neither.

    A lingering connection has no parser, has closed its sending side, and discards what it receives.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.in_head = True
        self.head_since: float | None = None
        self.head_bytes = 0  # an upper bound: everything received since the last whole head
        self.heads = 0  # received whole
        # Of the body that is arriving:
        self.chunks = 0
        self.body_bytes = 0
        self.framing_bytes = 0  # sizes of chunks, their extensions, trailers
        self.late_bytes = 0  # received after the answer
        self.late_since: float | None = None
        # Of the output that the client has not read yet, at the last check:
        self.unsent_bytes = 0
        self.unsent_since = 0.0
        self.answering: RequestResponseCycle | None = None
        self.is_finishing = False  # earlier requests are still answered, but nothing more is read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_since = self.loop.time()
        if not guard_of(self.loop).admit(self):
            transport.write(self._dated(TOO_MANY))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        guard_of(self.loop).forget(self)
        self._disconnect()

    def _disconnect(self) -> None:
        """Mark all requests disconnected: uvicorn marks only the last of a pipeline; each other would log an error."""
        for cycle in (self.answering, self.cycle, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.answering = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self.transport.is_closing():
            return  # the client has left or is being disconnected; this data was still in flight
        if not self.in_head:
            self._receive_body(data)
            return
        heads, is_first = self.heads, not self.head_bytes
        self.head_bytes += len(data)
        self._parse(data)
        if self.heads != heads:
            self.head_bytes = 0
            if not self.in_head:
                self._expect_body()
        elif self.head_bytes > HEAD_BYTES:  # all of it belongs to one head that is not whole yet
            self._end(TOO_LARGE)
        elif is_first:
            self.head_since = self.loop.time()

    def _expect_body(self) -> None:
        self.body_bytes, self.framing_bytes = len(self.cycle.body), 0
        self.late_bytes, self.late_since = 0, None
        self.cycle.transport = AnswerTransport(self)  # type: ignore[assignment]

    def _receive_body(self, data: bytes) -> None:
        """Receive more of a body that is not whole yet, and maybe the start of the next request."""
        cycle, heads = self.cycle, self.heads
        is_late = cycle.response_complete
        if is_late:
            self.late_bytes += len(data)
            if self.late_bytes > LATE_BYTES:
                self.linger()
                return
        held, self.head_bytes = len(cycle.body), len(data)
        self._parse(data)
        self.head_bytes = 0
        if self.heads != heads:
            if not self.in_head:
                self._expect_body()
        elif self.in_head:
            if is_late:  # the answer, which would start the keep-alive timer, has already been sent
                self.head_since = self.loop.time()
        else:
            body_bytes = len(cycle.body) - held
            self.body_bytes += body_bytes
            self.framing_bytes += len(data) - body_bytes
            if self.framing_bytes > HEAD_BYTES + self.body_bytes // 8:
                self._end(TOO_LARGE)

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():  # other upgrades may be ignored (RFC 9110, section 7.8)
                self.handle_websocket_upgrade()
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, Refused):
                self._end(error.__context__.answer)
            else:
                invalid_requests.write("What %s sent is not HTTP/1.1: %s", self.client, error)
                self._end(INVALID)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Do what uvicorn's does, without calling it: one more call for each header would be measurable."""
        headers = self.headers
        if not self.in_head:  # a trailer, which must not be treated as a header (RFC 9110, section 6.5.1)
            self.on_chunk_header()
        elif len(headers) >= MAX_HEADERS:
            raise Refused(TOO_LARGE)
        else:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.head_bytes > HEAD_BYTES:
            head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if head_bytes > HEAD_BYTES:
                raise Refused(TOO_LARGE)
        super().on_headers_complete()
        self.in_head, self.head_since = False, None
        self.chunks = self.body_bytes = 0
        self.heads += 1

    def on_chunk_header(self) -> None:
        self.chunks += 1
        if self.chunks > SMALL_CHUNKS + (self.body_bytes + len(self.cycle.body)) // CHUNK_BYTES:
            raise Refused(SMALL)

    def on_message_complete(self) -> None:
        self.in_head = True
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the transport to another protocol, unless an earlier request still has to be answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._end(b"")
            return
        guard_of(self.loop).hand_over(self)
        super().handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment]

    def on_response_complete(self) -> None:
        """Do what uvicorn's does, but leave idle connections to the guard: a timer for each answer costs far more."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.head_since = self.loop.time()

    def resume_writing(self) -> None:
        self.unsent_bytes = 0
        super().resume_writing()

    def end_overdue(self, now: float) -> None:
        """Close or abort the connection if it has been too long in a state that must end."""
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes:
            if not self.unsent_bytes or unsent_bytes < self.unsent_bytes:
                self.unsent_since = now
            elif now - self.unsent_since > STALLED_SECONDS:
                self.transport.abort()
            self.unsent_bytes = unsent_bytes
            return
        self.unsent_bytes = 0
        has_ended = self.parser is None and not self.is_finishing
        if has_ended or (not self.in_head and self.cycle.response_complete):
            if self.late_since is None:
                self.late_since = now
            elif now - self.late_since > LINGER_SECONDS:
                self.transport.close()
        elif self.cycle is not None and not self.cycle.response_complete:
            pass  # the application has its own deadlines, and we may be reading nothing in the meantime
        elif self.head_since is not None and now - self.head_since > HEAD_SECONDS:
            self._end(TOO_SLOW if self.head_bytes else b"")

    def _end(self, answer: bytes) -> None:
        """End the connection with `answer`, or once the earlier requests have been answered."""
        if self.parser is None or self.transport.is_closing():
            return
        cycle = self.cycle
        if self.in_head:
            is_first = cycle is None or cycle.response_complete
        else:
            is_first = cycle is self.answering and not cycle.response_started
        if is_first and answer:
            self.transport.write(self._dated(answer))
            self.linger()
        elif answer and self.in_head:
            self.parser, self.is_finishing = None, True  # type: ignore[assignment]
            cycle.keep_alive = False  # the newest request: the connection is closed after its answer
        else:
            self.transport.close()

    def _dated(self, answer: bytes) -> bytes:
        """`answer` with what the server adds to every response: Date (RFC 9110, section 6.6.1)."""
        line, rest = answer.split(b"\r\n", 1)
        return b"\r\n".join([line, *(b"%s: %s" % header for header in self.server_state.default_headers), rest])

    def linger(self) -> None:
        """Send nothing more, discard what arrives, and close after LINGER_SECONDS unless the client closes first."""
        if self.parser is None or self.transport.is_closing():
            return
        self.parser = None  # type: ignore[assignment]
        self._disconnect()
        self.late_since = None
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
