"""Open sockets of analysts in a process of their own, with as little work for each frame as possible.

Run as `python -m benchmarks.sockets PORT COOKIES`: COOKIES is a JSON array, with one socket for each. Prints a line
when all are open. Given `KEY ALERTS ADDRESS` too, opens the sockets of that address, posts ALERTS alerts, each when the
one before is answered, and prints a line of JSON instead: for each alert, the milliseconds from just before its POST
until the last socket had it.
"""

import asyncio
import base64
import json
import os
import struct
import sys
import time
from collections.abc import Callable

import uvloop

SETTLE = 2.0  # seconds to finish the work that the handshakes left
PING, TEXT = 9, 1
ALERTS, GROUPS = "/api/ws/security", "/api/ws/groups"


class Page(asyncio.Protocol):
    """A WebSocket that parses only the head of a frame (RFC 6455, section 5.2), and answers pings."""

    def __init__(self, port: int, address: str, cookie: str, seen: Callable[[bytes], None]) -> None:
        self.port, self.address, self.cookie, self.seen = port, address, cookie, seen
        self.opened = asyncio.get_running_loop().create_future()
        self.buffer = b""

    def connection_made(self, transport) -> None:
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {self.address} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nOrigin: http://127.0.0.1:{self.port}\r\n"
            f"Cookie: {self.cookie}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.opened.done():
            head, end, rest = self.buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head:
                raise SystemExit(head.decode())
            self.buffer = rest
            self.opened.set_result(None)
        while frame := self.next_frame():
            kind, payload = frame
            if kind == TEXT:
                self.seen(payload)
            elif kind == PING:
                self.transport.write(bytes([0x8A, 0x80 | len(payload), 0, 0, 0, 0]) + payload)

    def next_frame(self) -> tuple[int, bytes] | None:
        if len(self.buffer) < 2:
            return None
        size, start = self.buffer[1], 2
        if size == 126 and len(self.buffer) >= 4:
            size, start = struct.unpack(">H", self.buffer[2:4])[0], 4
        if len(self.buffer) < start + size:
            return None
        frame = self.buffer[0] & 0x0F, self.buffer[start : start + size]
        self.buffer = self.buffer[start + size :]
        return frame


async def open_pages(
    port: int, cookies: list[str], seen: Callable[[int], Callable[[bytes], None]], address: str = ALERTS
) -> None:
    loop = asyncio.get_running_loop()
    for first in range(0, len(cookies), 50):
        made = [
            await loop.create_connection(lambda n=n, c=cookie: Page(port, address, c, seen(n)), "127.0.0.1", port)
            for n, cookie in enumerate(cookies[first : first + 50], first)
        ]
        await asyncio.gather(*(page.opened for _, page in made))


async def listen(port: int, cookies: list[str]) -> None:
    await open_pages(port, cookies, lambda number: lambda payload: None)
    print("open", flush=True)
    await asyncio.Event().wait()


async def burst(port: int, cookies: list[str], key: str, count: int, address: str) -> list[float]:
    """The milliseconds of each alert. Each socket must get each alert once, in the order of ids.

    A frame of groups has all that changed since the one before: each alert is the first of a group.
    """
    had, arrived = [0] * count, [0.0] * count
    last, received = [0] * len(cookies), [0] * len(cookies)
    name = b'"id":' if address == ALERTS else b'"revision":'
    finished = asyncio.get_running_loop().create_future()

    def seen(number: int) -> Callable[[bytes], None]:
        def take(payload: bytes) -> None:
            value = int(payload[payload.index(name) + len(name) :].split(b",", 1)[0])
            if payload.startswith(b'{"type":"caught_up"'):
                last[number] = value
                return
            if value <= last[number]:
                raise SystemExit("an alert came twice, or out of order")
            alerts = value - last[number] if address == GROUPS else 1
            last[number] = value
            for _ in range(alerts):
                note(received[number])
                received[number] += 1

        def note(index: int) -> None:
            had[index] += 1
            if had[index] == len(cookies):
                arrived[index] = time.perf_counter()
                if index == count - 1:
                    finished.set_result(None)

        return take

    await open_pages(port, cookies, seen, address)
    await asyncio.sleep(SETTLE)
    sent = await post_alerts(port, key, count)
    await asyncio.wait_for(finished, 60)
    return [(there - then) * 1000 for there, then in zip(arrived, sent, strict=True)]


async def post_alerts(port: int, key: str, count: int) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = []
    for number in range(count):
        body = (
            b'[{"kind":"security_alert","timestamp":"2026-06-06T10:00:00Z","data":{"title":"Port scan %d of %d",'
            b'"severity":"high","source_ip":"192.168.1.100","destination_ip":"10.0.0.1",'
            b'"description":"SYN scan from 192.168.1.100 on 256 ports"}}]' % (number, time.time_ns())
        )
        sent.append(time.perf_counter())
        writer.write(
            f"POST /v1/ingest HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Device-Key: {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 204 " not in answer:
            raise SystemExit(answer.decode())
    return sent


if __name__ == "__main__":
    where, who = int(sys.argv[1]), json.loads(sys.argv[2])
    if len(sys.argv) > 3:
        print(json.dumps(uvloop.run(burst(where, who, sys.argv[3], int(sys.argv[4]), sys.argv[5]))))
    else:
        uvloop.run(listen(where, who))
