"""Requests byte by byte, as no client library would send them."""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ingest.models import IngestBatch
from tests.support.events import log
from tests.support.live import ROOT, Server, free_port, test_database_url

GET_LOGIN = b"GET /login/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/ingest HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
HANDSHAKE = (
    b"GET /api/ws/security HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def head(key: str, length: int) -> bytes:
    return (
        f"POST /v1/ingest HTTP/1.1\r\nHost: localhost\r\nX-Device-Key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def chunked_head(key: str) -> bytes:
    return POST + f"X-Device-Key: {key}\r\nContent-Type: application/json\r\n".encode() + CHUNKED


def chunks_of(body: bytes, size: int) -> bytes:
    """`body` in chunks of `size` bytes, without the last chunk."""
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def body_of(*events: dict) -> bytes:
    return json.dumps(events or [log()]).encode()


def wait_for_batches(count: int) -> None:
    deadline = time.monotonic() + 10
    while IngestBatch.objects.count() < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def connect(server: Server, seconds: float = 20, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=seconds, source_address=(address, 0))


def exchange(server: Server, *sent: bytes, seconds: float = 20) -> bytes:
    """Send the parts and return everything that comes back until the server closes.

    Raises TimeoutError, and ConnectionError if the server resets the connection.
    """
    with connect(server, seconds) as connection:
        for part in sent:
            connection.sendall(part)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def is_closed(connection: socket.socket, seconds: float) -> bool:
    """Whether the server fully closes the connection within `seconds`. Discards what the server sends."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while time.monotonic() < deadline:
        if poll.poll(100):
            try:
                if connection.recv(65536):
                    continue
                connection.sendall(b"x")  # a half-closed connection would still accept this
            except OSError:
                return True
            time.sleep(0.1)
    return False


def flood(server: Server, seconds: float, send: Callable[[socket.socket], None]) -> None:
    """Open one connection after another, and on each call `send` repeatedly until the server closes it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with connect(server, 1) as connection:
                while time.monotonic() < end:
                    send(connection)
        except OSError:
            continue


class AlteredServer(Server):
    """A server that first runs `alterations`, because some bounds are too large to wait for."""

    def __init__(self, log_file: Path, alterations: str, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log_file = log_file
        program = f"{alterations}\nfrom ingestcloud.server import main\nmain()"
        given = {"DATABASE_URL": test_database_url(), "PORT": str(self.port)}
        with log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program],
                cwd=ROOT,
                env=os.environ | given | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait()
