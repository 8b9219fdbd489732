"""Keep-alive HTTP clients that post prepared bodies as fast as they are answered, in a process of their own.

Run as `python -m benchmarks.load FILE CLIENTS PORT PASSES`: FILE is a pickle of whole requests. They are sent PASSES
times, each time with another number in place of `PASS`. Prints a line of JSON: requests, seconds, and the latencies'
p50 and p99 in milliseconds.
"""

import asyncio
import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

Request = tuple[str, bytes]
PASS = b"@@@@@@@@"


class Client(asyncio.Protocol):
    """One connection. It sends the next request when the one before is answered."""

    def __init__(self, requests: Iterator[bytes], latencies: list[float], failures: list[bytes]) -> None:
        self.requests, self.latencies, self.failures = requests, latencies, failures
        self.done = asyncio.get_running_loop().create_future()
        self.answer = b""

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.next()

    def next(self) -> None:
        request = next(self.requests, None)
        if request is None:
            self.done.set_result(None)
            self.transport.close()
            return
        self.began = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.answer += data
        if b"\r\n\r\n" not in self.answer:
            return
        self.latencies.append(time.perf_counter() - self.began)
        if not self.answer.startswith(b"HTTP/1.1 204"):
            self.failures.append(self.answer)
        self.answer = b""
        self.next()

    def connection_lost(self, error) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionResetError())


def distinct(prepared: list[bytes], passes: int) -> Iterator[bytes]:
    for number in range(passes):
        for request in prepared:
            yield request.replace(PASS, b"%08d" % number) if passes > 1 else request


async def drive(prepared: list[bytes], clients: int, port: int, passes: int) -> dict[str, object]:
    latencies: list[float] = []
    failures: list[bytes] = []
    requests = distinct(prepared, passes)
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Client(requests, latencies, failures), "127.0.0.1", port)
        for _ in range(clients)
    ]
    await asyncio.gather(*(client.done for _, client in made))
    seconds = time.perf_counter() - began
    if failures:
        raise SystemExit(f"{len(failures)} failed, the first: {failures[0].decode()}")
    cuts = statistics.quantiles(latencies, n=100)
    return {"requests": len(latencies), "seconds": seconds, "p50": cuts[49] * 1000, "p99": cuts[98] * 1000}


def post(requests: list[Request], clients: int, port: int, passes: int = 1) -> dict[str, float]:
    """Send (device key, body) requests from another process and return its figures. A failed request ends it all."""
    raw = [
        f"POST /v1/ingest HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Device-Key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
        for key, body in requests
    ]
    with tempfile.NamedTemporaryFile() as file:
        pickle.dump(raw, file)
        file.flush()
        command = [sys.executable, "-m", "benchmarks.load", file.name, str(clients), str(port), str(passes)]
        return json.loads(subprocess.check_output(command))


if __name__ == "__main__":
    prepared = pickle.loads(Path(sys.argv[1]).read_bytes())
    print(json.dumps(uvloop.run(drive(prepared, *map(int, sys.argv[2:])))))
