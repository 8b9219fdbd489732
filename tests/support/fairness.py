"""Measures how long other clients wait while one misbehaves."""

import threading
import time

import httpx

from tests.support.events import log
from tests.support.live import HTTP, Server


class Others(threading.Thread):
    """Another device, which sends one small batch after another. `waits` has the seconds that each took."""

    def __init__(self, server: Server, key: str) -> None:
        super().__init__()
        self.server, self.key = server, key
        self.waits: list[float] = []
        self.answers: set[int] = set()
        self.ended = threading.Event()

    def run(self) -> None:
        with httpx.Client(headers={"X-Device-Key": self.key}, **HTTP) as client:
            while not self.ended.is_set():
                began = time.monotonic()
                self.answers.add(client.post(f"{self.server.url}/v1/ingest", json=[log()]).status_code)
                self.waits.append(time.monotonic() - began)

    def __enter__(self) -> "Others":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.join()
