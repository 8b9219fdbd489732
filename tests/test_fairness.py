"""Whatever one device sends, other devices are not affected: they are answered within a second."""

import gzip
import itertools
import json
import select
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ingest.backlog import MAX_REQUESTS
from tests.support.assertions import assert_problem
from tests.support.events import alert, log
from tests.support.fairness import Others, assert_within, measures_waiting
from tests.support.live import HTTP, Server
from tests.support.raw_requests import head

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]

GZIP, ZSTD = {"Content-Encoding": "gzip"}, {"Content-Encoding": "zstd"}
LENIENT = {"Prefer": "handling=lenient"}
NAMES = ("cpu_percent", "memory_percent", "interface", "rx_bytes", "tx_bytes")
SIX_ERRORS = {"kind": "telemetry", "timestamp": 1, "data": {name: [] for name in NAMES}}
UNKNOWN = [log(note={"depth": [[[number]]]}, text="\u00e9" * 300) for number in range(1000)]
MANY_LISTS = b"[" + b",".join([b"[]"] * 1_700_000) + b"]"
HOSTILE = {
    "many empty gzip members": (gzip.compress(b"") * 100_000, GZIP, 400),
    "many empty zstd frames": (zstd.compress(b"") * 100_000, ZSTD, 400),
    "many errors": (gzip.compress(json.dumps([SIX_ERRORS] * 1000).encode()), GZIP, 400),
    "many errors, lenient": (gzip.compress(json.dumps([SIX_ERRORS] * 1000).encode()), GZIP | LENIENT, 200),
    "unknown fields": (gzip.compress(json.dumps(UNKNOWN).encode()), GZIP, 204),
    "many empty lists": (gzip.compress(MANY_LISTS), GZIP, 413),
    "deep nesting": (b"[" * 5_000_000, {}, 400),
    "digits": (b'[{"kind":"log","timestamp":"2026-06-06T10:00:00.' + b"9" * 4_000_000 + b'x","data":{}}]', {}, 400),
}


@measures_waiting
@pytest.mark.parametrize("name", HOSTILE)
def test_a_body_that_takes_long_does_not_delay_others(server: Server, make_key, name):
    (body, headers, status), (_, bad), (_, good) = HOSTILE[name], make_key(), make_key()

    def send(_: int) -> set[int]:
        end, answers = time.monotonic() + 2, set()
        while time.monotonic() < end:
            answers.add(server.post(bad, content=body, headers=headers).status_code)
        return answers

    with Others(server, good) as others, ThreadPoolExecutor(4) as pool:
        answers = set().union(*pool.map(send, range(4)))
    assert status in answers
    assert answers <= {status, 503}
    assert others.answers == {204}
    assert_within(1, max(others.waits))


ALERTS = gzip.compress(json.dumps([alert(f"Port scan {number}") for number in range(1000)]).encode())
FLOODS = {
    "large batches": lambda key, number: (key, ALERTS, GZIP | {"Idempotency-Key": f"flood-{number}"}),
    "small batches under new names": lambda key, number: (key, b"[]", {"Idempotency-Key": f"flood-{number}"}),
    "unknown keys": lambda key, number: (f"dvc_{number:043}", b"[]", {}),
}


@measures_waiting
@pytest.mark.parametrize("name", FLOODS)
def test_a_hundred_connections_of_one_client_do_not_delay_others(start_server, transactional_db, make_key, name):
    server = start_server()
    (_, bad), (_, good) = make_key(), make_key()
    end, numbers = time.monotonic() + 2, itertools.count()

    def send(_: int) -> set[int]:
        answers = set()
        with httpx.Client(**HTTP) as client:
            while time.monotonic() < end:
                key, body, headers = FLOODS[name](bad, next(numbers))
                headers = headers | {"X-Device-Key": key, "Content-Type": "application/json"}
                answers.add(client.post(f"{server.url}/v1/ingest", content=body, headers=headers).status_code)
        return answers

    with Others(server, good) as others, ThreadPoolExecutor(100) as pool:
        answers = set().union(*pool.map(send, range(100)))
    assert answers <= {204, 401, 503}
    assert others.answers == {204}
    assert_within(2, max(others.waits))  # under one, unless other tests have half of the processors
    server.stop()


def test_the_number_of_simultaneous_requests_of_a_device_is_limited(server, make_key):
    (_, busy), (_, other) = make_key(), make_key()
    surplus = 5
    lines = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(MAX_REQUESTS + surplus)]
    try:
        for line in lines:
            line.sendall(head(busy, 100) + b" ")
        # Before they are refused, a request of ours could take the place of one of the others, and then leave it.
        wait_for_answers(lines, surplus)
        answer = server.post(busy, [log()])
        assert_problem(answer, 503, "overloaded")
        assert int(answer.headers["Retry-After"]) > 0
        assert server.post(other, [log()]).status_code == 204
    finally:
        for line in lines:
            line.close()
    deadline = time.monotonic() + 5
    while server.post(busy, [log()]).status_code != 204:
        assert time.monotonic() < deadline


def wait_for_answers(lines: list[socket.socket], count: int) -> None:
    deadline = time.monotonic() + 5
    while len(select.select(lines, [], [], 0)[0]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_at_most_a_hundred_errors_are_listed(server, key):
    answer = server.post(key, [SIX_ERRORS] * 1000)
    assert_problem(answer, 400, "invalid_events")
    assert len(answer.json()["errors"]) == 100
    assert "there are 5,900 more" in answer.json()["detail"]


@measures_waiting
def test_bodies_that_are_never_completed_time_out_and_do_not_delay_others(altered_server, make_key):
    server = altered_server("import ingestcloud.asgi, ingest.handler as h; h.SILENCE_SECONDS = 4.0")
    (_, bad), (_, good) = make_key(), make_key()
    size = 5 * 2**20
    with ThreadPoolExecutor(12) as pool, Others(server, good) as others:
        began = time.monotonic()
        answers = list(pool.map(lambda _: answer_to_most(server, bad, size), range(12)))
        assert_within(30, time.monotonic() - began)
    assert {answer[:12] for answer in answers} <= {b"HTTP/1.1 408", b"HTTP/1.1 503", b"HTTP/1.1 429"}
    assert others.answers == {204}
    assert_within(1, max(others.waits))
    assert server.post(bad, [log()]).status_code == 204


def answer_to_most(server: Server, key: str, size: int) -> bytes:
    """Send all but the last byte of a body, then nothing, and return the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=40) as connection:
        try:
            connection.sendall(head(key, size) + b" " * (size - 1))
        except (ConnectionResetError, BrokenPipeError):
            pass  # answered before the whole body was read
        try:
            return connection.recv(10_000)
        except ConnectionResetError:
            return b"HTTP/1.1 503"


def test_an_alert_in_each_batch_does_not_switch_the_limit_off(server, device_key):
    device = device_key.device
    device.events_per_second, device.burst = 1, 50
    device.save()
    time.sleep(0.1)
    answers = [server.post(device_key.plaintext, [alert(), *[log() for _ in range(40)]]) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [204, 204, 429, 429, 429]
    assert_problem(answers[-1], 429, "rate_limited")
    assert server.post(device_key.plaintext, [alert()]).status_code == 204
