"""Requests byte by byte, for clients that no library would write."""

import json
import time

from ingest.models import IngestBatch
from tests.support.events import log


def head(key: str, length: int) -> bytes:
    return (
        f"POST /v1/ingest HTTP/1.1\r\nHost: localhost\r\nX-Device-Key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def body_of(*events: dict) -> bytes:
    return json.dumps(events or [log()]).encode()


def wait_for_batches(count: int) -> None:
    deadline = time.monotonic() + 10
    while IngestBatch.objects.count() < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
