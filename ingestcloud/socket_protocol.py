"""WebSocket by uvicorn, with a bound on what a client may send.

Parsing takes time on the event loop that all connections share, and control frames and fragments never reach the
application. So bytes are counted here, before they are parsed.
"""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

BYTES_AT_ONCE = 8 * 1024  # from a client, whose frames have at least six bytes
BYTES_PER_SECOND = 1024  # in the long run, because a client has only pings to send
MAX_FRAGMENTS = 100  # per message; empty ones have no other bound
LINGER_SECONDS = 1.0  # for the close frame to arrive, before unread bytes make the system reset the connection
CLOSE_TOO_MUCH = 1008  # RFC 6455, section 7.4.1


class BoundedSocketProtocol(WebSocketsSansIOProtocol):
    """A socket. `allowance` is how many bytes its client may send now."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allowance: float = BYTES_AT_ONCE
        self.counted_at = self.loop.time()

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:  # this is the request, whose head has been bounded already
            return super().data_received(data)
        now = self.loop.time()
        earned = (now - self.counted_at) * BYTES_PER_SECOND
        self.allowance = min(BYTES_AT_ONCE, self.allowance + earned) - len(data)
        self.counted_at = now
        # A client must send nothing before its handshake is answered.
        if self.allowance < 0 or not self.handshake_complete:
            self._end()
        else:
            super().data_received(data)

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        else:
            self._end()

    def _end(self) -> None:
        if self.close_sent or not self.handshake_complete:
            self.transport.abort()
            return
        self.stop_keepalive()
        self.conn.send_close(CLOSE_TOO_MUCH)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": CLOSE_TOO_MUCH})
        self.read_paused = False  # or reading would resume once the application has received the earlier events
        self.transport.pause_reading()
        self.close_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
