"""How a body may arrive: encodings, lengths, limits."""

import asyncio
import gc
import gzip
import http.client
import io
import json
import random
import socket
import sys
import threading
import types
import zlib

import pytest
from django.core.handlers.asgi import ASGIRequest

from ingest.backlog import Reservation, backlog
from ingest.body import INFLATE, INLINE_BYTES, read_body
from ingest.errors import BodyTooLarge, Overloaded
from ingest.handler import StreamedRequest
from ingest.models import IngestBatch, IngestEvent
from ingest.turns import run_in_turn
from tests.support.assertions import assert_problem
from tests.support.events import log

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]

MAX_BYTES = 5 * 1024 * 1024


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ENCODINGS = {
    "gzip": gzip.compress,
    "GZip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate without its wrapper": raw_deflate,
    "zstd": zstd.compress,
    "gzip in two members": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
    "zstd in two frames": lambda data: zstd.compress(data[:9]) + zstd.compress(data[9:]),
    "identity": lambda data: data,
}


def batch(count: int = 3) -> bytes:
    return json.dumps([log() for _ in range(count)]).encode()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_compressed_bodies_are_inflated(server, key, encoding):
    response = server.post(
        key, content=ENCODINGS[encoding](batch()), headers={"Content-Encoding": encoding.split(" ")[0]}
    )
    assert response.status_code == 204, response.text
    assert IngestEvent.objects.count() == 3


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "snappy"])
def test_other_encodings_are_415_with_the_supported_ones_listed(server, key, encoding):
    response = server.post(key, content=batch(), headers={"Content-Encoding": encoding})
    assert_problem(response, 415, "unsupported_content_encoding")
    assert response.headers["Accept-Encoding"] == "gzip, deflate, zstd"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_damaged_and_truncated_streams_are_400(server, key, encoding):
    whole = ENCODINGS[encoding](batch(50))
    for damaged in (b"", b"not compressed", whole[: len(whole) // 2], whole + b"rest"):
        response = server.post(key, content=damaged, headers={"Content-Encoding": encoding})
        assert_problem(response, 400, "malformed_body")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_413(server, key, encoding):
    bomb = ENCODINGS[encoding](b"[" + b" " * (50 * MAX_BYTES) + b"]")
    assert len(bomb) < MAX_BYTES
    assert_problem(server.post(key, content=bomb, headers={"Content-Encoding": encoding}), 413, "body_too_large")


def test_the_limit_is_on_the_inflated_size_to_the_byte(server, key):
    body = batch()
    for padding, status in ((MAX_BYTES - len(body), 204), (MAX_BYTES + 1 - len(body), 413)):
        padded = body + b" " * padding
        assert server.post(key, content=padded).status_code == status
        compressed = gzip.compress(padded)
        assert server.post(key, content=compressed, headers={"Content-Encoding": "gzip"}).status_code == status


def test_a_thousand_events_are_accepted_and_one_more_is_413(server, key):
    assert server.post(key, content=batch(1000)).status_code == 204
    assert_problem(server.post(key, content=batch(1001)), 413, "too_many_events")
    assert IngestEvent.objects.count() == 1000


def test_limits_can_be_set_in_the_environment(start_server, transactional_db, key):
    small = start_server(INGEST_MAX_EVENTS="2", INGEST_MAX_BYTES="1000")
    assert small.post(key, content=batch(2)).status_code == 204
    assert_problem(small.post(key, content=batch(3)), 413, "too_many_events")
    assert_problem(small.post(key, content=b" " * 1001), 413, "body_too_large")
    small.stop()


def test_a_body_without_a_length_is_read_in_full(server, key):
    body = batch(100)
    parts = (body[start : start + 700] for start in range(0, len(body), 700))
    response = server.post(key, content=parts)
    assert "Content-Length" not in response.request.headers
    assert response.status_code == 204
    assert IngestEvent.objects.count() == 100


def test_an_endless_body_without_a_length_is_413_before_its_end(server, key):
    sent = 0
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(
            b"POST /v1/ingest HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: application/json\r\nX-Device-Key: " + key.encode() + b"\r\n\r\n"
        )
        while sent <= MAX_BYTES:
            connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
            sent += 65536
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_declared_length_over_the_limit_is_413_before_a_byte_is_sent(server, key):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest("POST", "/v1/ingest")
    for name, value in {"X-Device-Key": key, "Content-Type": "application/json", "Content-Length": "99999999"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (413, "body_too_large")
    connection.close()


def test_a_client_that_sends_an_oversized_body_to_its_end_can_still_read_the_answer(server, key):
    noise = random.Random(1).randbytes(6 * MAX_BYTES)
    assert_problem(server.post(key, content=noise), 413, "body_too_large")


def test_the_key_is_refused_before_the_body_is_read(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest("POST", "/v1/ingest")
    connection.putheader("Content-Length", "1000")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


def test_a_client_that_disconnects_mid_body_leaves_nothing_behind(server, key):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(
            f"POST /v1/ingest HTTP/1.1\r\nHost: localhost\r\nX-Device-Key: {key}\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n[".encode()
        )
    assert server.post(key, content=batch()).status_code == 204
    assert IngestBatch.objects.count() == 1


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/json; x*0*=a; x*=b",  # the email package, which reads these for Django's pages, can't sort them
        "application/json; charset*=nope''utf-8",
    ],
)
def test_json_content_types_are_accepted(server, key, content_type):
    assert server.post(key, content=batch(), headers={"Content-Type": content_type}).status_code == 204


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ],
)
def test_other_content_types_are_415(server, key, content_type):
    response = server.post(key, content=batch(), headers={"Content-Type": content_type})
    assert_problem(response, 415, "unsupported_content_type")


def test_a_byte_order_mark_is_ignored(server, key):
    assert server.post(key, content=b"\xef\xbb\xbf" + batch()).status_code == 204


@pytest.mark.parametrize("accept", ["text/html", "image/png", "*/*"])
def test_the_accept_header_does_not_matter(server, key, accept):
    assert server.post(key, content=batch(), headers={"Accept": accept}).status_code == 204


def test_the_number_of_values_is_bounded_in_small_bodies_too(server, key):
    many = b'[{"kind":"log","timestamp":"2026-06-06T10:00:00Z","data":{"level":"x","message":"x","n":[%s]}}]'
    assert server.post(key, content=many % b",".join([b"1"] * 99_000)).status_code == 204
    body = many % b",".join([b"1"] * 120_000)
    assert len(body) < INLINE_BYTES
    assert_problem(server.post(key, content=body), 413, "too_many_values")


VALUES = {"not JSON": (b"1," * 120_000, 400), "short strings": (b'"",' * 249_999 + b'""', 413)}


@pytest.mark.parametrize("name", VALUES)
def test_a_body_of_too_many_values_is_refused_for_its_worst_fault(server, key, name):
    values, status = VALUES[name]
    response = server.post(key, content=b"[" + values + b"]")
    assert_problem(response, status, "malformed_json" if status == 400 else "too_many_values")


async def test_a_body_that_djangos_own_handler_has_read_is_limited_too():
    """It came without a length, so it was not refused by that."""
    scope = {"type": "http", "method": "POST", "path": "/v1/ingest", "headers": []}
    assert await read_body(ASGIRequest(scope, io.BytesIO(b"x" * 10)), 10, Reservation(1)) == b"x" * 10
    with pytest.raises(BodyTooLarge):
        await read_body(ASGIRequest(scope, io.BytesIO(b"x" * 11)), 10, Reservation(1))


async def test_a_request_that_is_cancelled_while_its_body_arrives_is_not_taken_for_a_slow_one():
    arriving = asyncio.Event()

    async def receive() -> dict:
        arriving.set()
        return await asyncio.Future()

    request = StreamedRequest({"method": "POST", "path": "/v1/ingest", "headers": []}, receive)
    task = asyncio.create_task(request.receive_body(100, Reservation(1)))
    await arriving.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_body_is_counted_once_in_the_backlog_while_it_arrives_and_while_it_is_checked():
    before = backlog.held
    with Reservation(1) as reservation:
        for size in (100, 200, 200, 150):
            reservation.grow(size)
        assert backlog.held == before + 200
    assert backlog.held == before


async def test_a_check_that_takes_too_long_is_503_and_keeps_the_turn_until_it_ends(monkeypatch):
    monkeypatch.setattr("ingest.turns.TURN_SECONDS", 0.05)
    began, may_end = [], threading.Event()

    def check() -> None:
        began.append(1)
        may_end.wait()

    for _ in range(2):
        with pytest.raises(Overloaded):
            await run_in_turn(1, check)
    may_end.set()
    assert len(began) == 1
    monkeypatch.undo()
    assert await run_in_turn(1, lambda: "checked") == "checked"


async def test_a_refused_body_does_not_stay_in_memory(client, device_key):
    """An exception from a thread must not form a cycle with its traceback, which would keep the body in memory."""
    body = zlib.compress(b" " * (MAX_BYTES + 1))
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(BodyTooLarge):
            await run_in_turn(device_key.device_id, INFLATE["deflate"], body, MAX_BYTES)
        found = [thing for thing in garbage() if isinstance(thing, types.FrameType)]
    finally:
        gc.enable()
    assert not found


def garbage() -> list[object]:
    """The objects that only the garbage collector would free."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return gc.garbage[:]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
