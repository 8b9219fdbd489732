"""HTTP/1.1 as uvicorn and httptools speak it, with bounds: on heads, on chunks, on silence, on answers that wait.

httptools keeps of a head whatever comes, and uvicorn waits for it without end. (h11 has a bound, and takes twice the
time of a small batch.) The bounds cost a small request no more than a look at a few attributes. `guard.py` bounds how
many connections there are, and ends those that are overdue.
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
    """What the answer is written to if the body was not whole at once: closing it waits for the rest of the body."""

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
    """A connection. `head_since` is when the head that is on its way began, None while there is none.

    When it lingers, it has no parser, has said that it will send nothing more, and discards what comes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.in_head = True
        self.head_since: float | None = None
        self.head_bytes = 0  # at most: what came since the last whole head
        self.heads = 0  # that are whole
        # Of the body that is on its way:
        self.chunks = 0
        self.body_bytes = 0
        self.framing_bytes = 0  # sizes of chunks, their extensions, trailers
        self.late_bytes = 0  # that came after the answer
        self.late_since: float | None = None
        # Of what the client has not taken yet, at the last look:
        self.unsent_bytes = 0
        self.unsent_since = 0.0
        self.answering: RequestResponseCycle | None = None
        self.is_finishing = False  # what came before is answered, and nothing more is read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_since = self.loop.time()
        if not guard_of(self.loop).admit(self):
            transport.write(TOO_MANY)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        guard_of(self.loop).forget(self)
        self._disconnect()

    def _disconnect(self) -> None:
        """uvicorn tells the last request of a pipeline; those before it would answer nobody, with an error each."""
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
            return  # the client has gone or is told to go, and what it sent before is on its way
        self._unset_keepalive_if_required()
        if not self.in_head:
            self._receive_body(data)
            return
        heads = self.heads
        self.head_bytes += len(data)
        self._parse(data)
        if self.heads != heads:
            self.head_bytes = 0
            if not self.in_head:
                self._expect_body()
        elif self.head_bytes > HEAD_BYTES:  # all of it belongs to a head that is still on its way
            self._end(TOO_LARGE)
        elif self.head_since is None:
            self.head_since = self.loop.time()

    def _expect_body(self) -> None:
        self.body_bytes, self.framing_bytes = len(self.cycle.body), 0
        self.late_bytes, self.late_since = 0, None
        self.cycle.transport = AnswerTransport(self)  # type: ignore[assignment]

    def _receive_body(self, data: bytes) -> None:
        """More of a body that was not whole, and maybe what follows it."""
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
            if is_late:  # no answer is to come that would start the timer of the keep-alive
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
        """As uvicorn's, which is not called because a call for each header would be felt."""
        headers = self.headers
        if not self.in_head:  # a trailer: it must not be taken for a header (RFC 9110, section 6.5.1)
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
        """The transport goes to another protocol, so nothing may be owed by this one any more."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._end(b"")
            return
        guard_of(self.loop).hand_over(self)
        super().handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment]

    def resume_writing(self) -> None:
        self.unsent_bytes = 0
        super().resume_writing()

    def end_overdue(self, now: float) -> None:
        """Close or abort the connection if it has been in a state that must end for too long."""
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
            pass  # the application has deadlines of its own, and meanwhile we may read nothing
        elif self.head_since is not None and now - self.head_since > HEAD_SECONDS:
            self._end(TOO_SLOW if self.head_bytes else b"")

    def _end(self, answer: bytes) -> None:
        """End the connection: with `answer`, or when the requests that came before are answered."""
        if self.parser is None or self.transport.is_closing():
            return
        cycle = self.cycle
        if self.in_head:
            is_first = cycle is None or cycle.response_complete
        else:
            is_first = cycle is self.answering and not cycle.response_started
        if is_first and answer:
            self.transport.write(answer)
            self.linger()
        elif answer and self.in_head:
            self.parser, self.is_finishing = None, True  # type: ignore[assignment]
            cycle.keep_alive = False  # the newest one: the connection is closed behind its answer
        else:
            self.transport.close()

    def linger(self) -> None:
        """Send nothing more, discard what comes, and close after LINGER_SECONDS if the client does not before."""
        if self.parser is None or self.transport.is_closing():
            return
        self.parser = None  # type: ignore[assignment]
        self._disconnect()
        self.late_since = None
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
