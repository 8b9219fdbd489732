"""Whatever bytes strangers send: each connection ends, holds up no one else, and the log stays quiet."""

import json
import re
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.models import IngestBatch
from tests.support.events import log
from tests.support.fairness import Others, assert_within, measures_waiting
from tests.support.fuzz import FUZZ
from tests.support.live import HTTP, Server
from tests.support.raw_requests import (
    CHUNKED,
    GET_LOGIN,
    HANDSHAKE,
    POST,
    body_of,
    chunked_head,
    chunks_of,
    connect,
    exchange,
    flood,
    head,
    is_closed,
)

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]

LAST_CHUNK = b"0\r\n\r\n"
CLOSE = b"Connection: close\r\n"
LARGE_FILE = b"GET /static/rest_framework/css/bootstrap.min.css.map HTTP/1.1\r\nHost: localhost\r\n\r\n"
ENDS_WITHIN = 25  # seconds; the last to end are those that send part of a head


def rss(server: Server) -> int:
    return psutil.Process(server.process.pid).memory_info().rss


def answer_on(connection: socket.socket) -> bytes:
    """Read one whole JSON answer from a connection that stays open."""
    answer = connection.recv(65536)
    while not answer.endswith(b"}"):
        answer += connection.recv(65536)
    return answer


class TestHandshakes:
    def test_one_behind_unanswered_requests_is_refused(self, server):
        for _ in range(40):
            with connect(server) as connection:
                connection.sendall(GET_LOGIN * 3 + HANDSHAKE)
        assert b"HTTP/1.1 101" not in exchange(server, GET_LOGIN + HANDSHAKE)
        for _ in range(10):
            assert httpx.get(f"{server.url}/login/", **HTTP).status_code == 200

    def test_one_after_an_answer_is_processed(self, server):
        with connect(server) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer_on(connection).startswith(b"HTTP/1.1 200 ")
            connection.sendall(HANDSHAKE)
            assert connection.recv(65536).startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 403 "))


class TestHeads:
    @pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"])
    def test_one_of_100_kilobytes_in_one_write_is_refused(self, server, before):
        answer = exchange(server, before + POST + b"X: " + b"x" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n")
        assert b"HTTP/1.1 431 " in answer or (before and b"HTTP/1.1 200 " in answer)
        assert b"HTTP/1.1 401 " not in answer

    def test_one_of_60_kilobytes_is_read(self, server):
        answer = exchange(server, POST + CLOSE + b"X: " + b"x" * 60_000 + b"\r\nContent-Length: 0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 401 ")

    def test_one_with_more_than_128_headers_is_refused(self, server):
        for count, status in ((125, b"401"), (127, b"431")):  # plus three: those of POST and CLOSE, and the length
            answer = exchange(server, POST + CLOSE + b"a: b\r\n" * count + b"Content-Length: 0\r\n\r\n")
            assert answer[9:12] == status

    def test_input_that_is_not_http_gets_a_problem_and_few_log_lines(self, start_server):
        server = start_server()  # another test may have used up the one line that is logged in ten seconds
        for _ in range(50):
            answer_head, _, body = exchange(server, b"hello\r\n\r\n").partition(b"\r\n\r\n")
            assert answer_head.startswith(b"HTTP/1.1 400 Bad Request\r\ndate: ")
            assert b"content-type: application/problem+json" in answer_head
            assert b"x-content-type-options: nosniff" in answer_head
            assert json.loads(body)["code"] == "invalid_request"
        assert 0 < len(re.findall("not HTTP/1.1|Invalid HTTP", server.log)) < 5
        server.stop()


class TestChunks:
    def test_a_small_body_in_a_few_hundred_chunks_is_accepted(self, server, key):
        body = body_of(log(message="x" * 600))
        answer = exchange(server, chunked_head(key).replace(POST, POST + CLOSE) + chunks_of(body, 1) + LAST_CHUNK)
        assert answer.startswith(b"HTTP/1.1 204 ")
        assert IngestBatch.objects.count() == 1

    def test_a_large_body_in_chunks_of_128_bytes_is_accepted(self, server, key):
        body = body_of(*[log(message="x" * 2000) for _ in range(900)])
        answer = exchange(server, chunked_head(key).replace(POST, POST + CLOSE) + chunks_of(body, 128) + LAST_CHUNK)
        assert answer.startswith(b"HTTP/1.1 204 ")

    def test_trailers_are_not_headers(self, server, key):
        body = (
            chunks_of(body_of(), 1000) + b"0\r\nX-Device-Key: " + key.encode() + b"\r\nContent-Encoding: gzip\r\n\r\n"
        )
        assert exchange(server, POST + CLOSE + CHUNKED + body).startswith(b"HTTP/1.1 401 ")
        assert exchange(server, chunked_head(key).replace(POST, POST + CLOSE) + body).startswith(b"HTTP/1.1 204 ")

    def test_thousands_of_small_chunks_are_refused(self, server, key):
        answer = exchange(server, chunked_head(key) + chunks_of(b" " * 2000, 1))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"chunks_too_small" in answer


ENDLESS = {
    "headers": (POST, b"a:b\r\n" * 15_000),
    "heads of many headers": (POST, b"a:\r\n" * 15_000 + b"\r\n" + POST),
    "chunks": (CHUNKED, chunks_of(b" " * 50_000, 1)),
    "trailers": (CHUNKED + b"1\r\n \r\n0\r\n", b"a:b\r\n" * 13_000),
    "a trailer": (CHUNKED + b"1\r\n \r\n0\r\nx: ", b"x" * 65536),
    "the extension of a chunk": (CHUNKED + b"1;", b"x" * 65536),
}


@measures_waiting
@pytest.mark.parametrize("with_key", [True, False])
@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_request_holds_up_no_one_and_takes_no_memory(server, make_key, name, with_key):
    (_, bad), (_, good) = make_key(), make_key()
    start, more = ENDLESS[name]
    if start is not POST:
        start = (chunked_head(bad) if with_key else POST + CHUNKED).removesuffix(CHUNKED) + start
    started, before = threading.local(), rss(server)

    def send(connection: socket.socket) -> None:
        if getattr(started, "connection", None) is not connection:
            started.connection = connection
            connection.sendall(start)
        connection.sendall(more)

    with Others(server, good) as others, ThreadPoolExecutor(40) as pool:
        list(pool.map(lambda _: flood(server, 1.5, send), range(40)))
    assert others.answers == {204}
    assert_within(1, max(others.waits))
    assert rss(server) - before < 100 * 2**20


LATE = {
    "no key, then a byte": (POST + b"Content-Length: 100000\r\n\r\nab", b"c"),
    "too large, then a byte": (POST + b"X-Device-Key: KEY\r\nContent-Length: 10000000\r\n\r\nab", b"c"),
    "a page that takes no body": (b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n", b"c"),
    "chunks": (POST + CHUNKED + b"1\r\na\r\n", b"1\r\n"),
    "the rest and a part of the next head": (POST + b"Content-Length: 3\r\n\r\na", b"bcGET / HT"),
    "the rest and nothing": (POST + b"Content-Length: 3\r\n\r\na", b"bc"),
}


@measures_waiting
@pytest.mark.parametrize("pause", [0, 1])
def test_a_body_that_is_still_incomplete_after_its_answer_ends_the_connection(altered_server, make_key, pause):
    server = altered_server("import ingestcloud.bounds as b; b.LINGER_SECONDS, b.HEAD_SECONDS = 2, 4")
    (_, bad), (_, good) = make_key(), make_key()
    lines = [connect(server) for _ in LATE]
    with Others(server, good) as others, ThreadPoolExecutor(len(LATE)) as pool:
        for line, (start, _) in zip(lines, LATE.values(), strict=True):
            line.sendall(start.replace(b"KEY", bad.encode()))
        time.sleep(pause)
        for line, (_, more) in zip(lines, LATE.values(), strict=True):
            line.sendall(more)
        assert [line.recv(12) for line in lines[:3]] == [b"HTTP/1.1 401", b"HTTP/1.1 413", b"HTTP/1.1 413"]
        closed = pool.map(lambda line: is_closed(line, ENDS_WITHIN), lines)
        assert dict(zip(LATE, closed, strict=True)) == dict.fromkeys(LATE, True)
    for line in lines:
        line.close()
    assert others.answers == {204}
    assert_within(1, max(others.waits))


@pytest.mark.parametrize("extra", [b"", CLOSE])
def test_a_client_whose_large_body_is_refused_can_read_why(server, extra):
    size = 20_000_000
    for _ in range(10):
        answer = exchange(server, POST + extra + b"Content-Length: %d\r\n\r\n" % size, b"x" * size)
        assert answer.startswith(b"HTTP/1.1 401 ")


def test_a_connection_is_kept_if_the_rest_of_a_refused_body_arrives(server, key):
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(POST + b"Content-Length: 20000\r\n\r\n")
            assert answer_on(connection).startswith(b"HTTP/1.1 401 ")
            connection.sendall(b"x" * 20_000)
        body = body_of()
        connection.sendall(head(key, len(body)) + body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 204 ")


@measures_waiting
def test_a_client_that_never_reads_is_disconnected_but_a_slow_one_is_not(altered_server, make_key):
    server, (_, good) = altered_server("import ingestcloud.bounds as b; b.STALLED_SECONDS = 3"), make_key()
    process = psutil.Process(server.process.pid)
    lines = []
    for _ in range(21):
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", server.port))
        line.sendall(LARGE_FILE * 30)
        lines.append(line)
    slow, *silent = lines
    with Others(server, good) as others:
        for _ in range(40):
            time.sleep(0.2)
            assert slow.recv(65536)
        ports = {line.getsockname()[1] for line in silent}
        left = {line.raddr.port for line in process.net_connections() if line.raddr} & ports
        assert not left
    for line in lines:
        line.close()
    assert others.answers == {204}
    assert_within(1, max(others.waits))


class TestOneAddress:
    FEW = "import ingestcloud.guard as g; g.MAX_CONNECTIONS = 200"

    def test_it_gets_at_most_a_quarter_of_the_connections(self, altered_server):
        server = altered_server(self.FEW, FORWARDED_ALLOW_IPS="192.0.2.1")
        time.sleep(0.5)
        lines = [connect(server) for _ in range(50)]
        assert exchange(server).startswith(b"HTTP/1.1 503 ")
        other = connect(server, address="127.0.0.2")
        other.sendall(GET_LOGIN)
        assert other.recv(12) == b"HTTP/1.1 200"
        other.close()
        for line in lines:
            line.close()
        time.sleep(0.5)
        assert httpx.get(f"{server.url}/login/", **HTTP).status_code == 200

    def test_a_proxy_gets_more(self, altered_server):
        server = altered_server(self.FEW, FORWARDED_ALLOW_IPS="127.0.0.0/8")
        lines = [connect(server) for _ in range(150)]
        assert httpx.get(f"{server.url}/login/", **HTTP).status_code == 200
        for line in lines:
            line.close()


def mostly(usual: list[bytes], odd: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.sampled_from(usual * 3 + odd)


METHODS = mostly([b"GET", b"POST"], [b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"PRI", b"BREW", b"get", b"", b"\xff"])
PATHS = mostly(
    [b"/v1/ingest", b"/login/", b"/healthz", b"/api/v1/devices/register", b"/api/ws/security"],
    [b"*", b"/%00", b"/\xff", b"//", b"http://x/", b"x:443", b"/?" + b"q" * 2000, b"/" + b"x" * 70_000, b""],
)
VERSIONS = mostly([b"HTTP/1.1"], [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/9.9", b"http/1.1", b""])
HEADERS = mostly(
    [
        b"Host: localhost",
        b"Content-Length: 2",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
        b"X-Device-Key: KEY",
    ],
    [
        b"Connection: Upgrade\r\nUpgrade: websocket",
        b"Connection: Upgrade\r\nUpgrade: h2c",
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        b"Content-Length: 99999999999999999999",
        b"Content-Length: -1",
        b"Content-Length: 3000",
        b"Transfer-Encoding: gzip, chunked",
        b"Expect: 100-continue",
        b"Content-Encoding: gzip",
        b"X: a\0b",
        b": x",
        b"\xff: \xff",
        b" folded",
        b"X: " + b"x" * 70_000,
        b"\r\n".join([b"a:b"] * 200),
    ],
)
BODIES = mostly(
    [b"", b"[]", b"2\r\n[]\r\n0\r\n\r\n"],
    [
        b"2\r\n[]\r\n0\r\na: b\r\n\r\n",
        b"2;x=y\r\n[",
        b"-1\r\n",
        b"fffffffffffffffff\r\n",
        b"1\r\n \r\n" * 2000,
        b"x" * 3000,
    ],
)
REQUESTS = st.builds(
    lambda method, path, version, headers, body: (
        b" ".join([method, path, version]) + b"\r\n" + b"".join(line + b"\r\n" for line in headers) + b"\r\n" + body
    ),
    METHODS,
    PATHS,
    VERSIONS,
    st.lists(HEADERS, max_size=6),
    BODIES,
)
PARTS = st.one_of(REQUESTS, st.sampled_from([GET_LOGIN, HANDSHAKE, b"\r\n", b"\0"]))
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(max_examples=60 * FUZZ, suppress_health_check=list(HealthCheck))
@given(parts=st.lists(PARTS, min_size=1, max_size=5), cut=st.integers(0, 200), wait=st.booleans(), reset=st.booleans())
def test_generated_requests_cause_no_server_errors(server, key, parts, cut, wait, reset):
    """Sent in a few writes, cut short, and closed with or without a reset, before or after the first answer."""
    printed = len(server.log)
    sent = b"".join(parts).replace(b"KEY", key.encode())
    sent, answer = sent[: len(sent) - cut], b""
    if b"websocket" in sent:
        sent = sent[:50_000]  # in one write, because what follows a handshake is not HTTP
    with connect(server, 0.2) as connection:
        try:
            for start in range(0, len(sent), 50_000):
                connection.sendall(sent[start : start + 50_000])
            if wait:
                answer = connection.recv(65536)
        except OSError:
            pass
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    assert not re.match(rb"HTTP/1.1 50[0-2]", answer) or b"BREW" in sent
    assert server.post(key, [log()]).status_code == 204
    assert "Traceback" not in server.log[printed:]
    assert not re.search('" 500', server.log[printed:])
