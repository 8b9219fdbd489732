"""The server before any of our own code runs: its limits, and what happens to its processes."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import psutil
import pytest
from django.db import connection as database
from websockets.exceptions import ConnectionClosed

from tests.support.events import log
from tests.support.fairness import assert_within, measures_waiting
from tests.support.live import HTTP, ROOT, Server, free_port, test_database_url
from tests.support.raw_requests import body_of, head, wait_for_batches
from tests.support.servers import servers_only

pytestmark = pytest.mark.django_db(transaction=True)


def answer_to(server: Server, *sent: bytes, seconds: float = 20) -> bytes:
    """Everything that comes back until the server closes the connection, or sends nothing for `seconds`."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        try:
            for part in sent:
                connection.sendall(part)
            while part := connection.recv(65536):
                answer += part
        except (ConnectionResetError, BrokenPipeError, TimeoutError):
            pass
    return answer


HEAD = b"POST /v1/ingest HTTP/1.1\r\nHost: localhost\r\n"
ODD = {
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS hello": bytes.fromhex("16030100c8010000c40303") + b"\0" * 60,
    "not HTTP": b"hello\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n",
    "an unknown method": b"BREW /v1/ingest HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "CONNECT": b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n",
    "a length and chunks": HEAD
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "an upgrade to h2c": HEAD + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n[]",
    "an upgrade to a WebSocket": HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\n[]",
    "a chunk without a length": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "an address that is a URL": b"GET http://example.org/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "a NUL in the path": b"GET /%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "a path and query not in UTF-8": b"GET /%ff?%ff=%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "a header with a NUL": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\nConnection: close\r\n\r\n",
    "no host": b"GET /alerts/ HTTP/1.1\r\nConnection: close\r\n\r\n",
    "a foreign host": b"GET /alerts/ HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n",
    "an expectation": HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]",
    "a POST to a static file": b"POST /static/alerts/site.css HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.once
@pytest.mark.parametrize("name", ODD)
def test_an_odd_request_causes_no_server_error_and_harms_no_one(server, key, name):
    answer = answer_to(server, ODD[name], seconds=2)
    assert re.match(rb"HTTP/1.1 ([1-4]|501|505)", answer) or not answer
    assert server.post(key, [log()]).status_code == 204


@pytest.mark.once
def test_an_endless_head_is_refused(server, key):
    before = psutil.Process(server.process.pid).memory_info().rss
    for part in (b"X: " + b"x" * 65536, b"x" * 65536, b"X: y\r\n" * 10_000):
        endless = b"GET /" + (b"" if part[:1] == b"X" else part) + b" HTTP/1.1\r\nHost: localhost\r\n"
        answer = answer_to(server, endless, *[part] * 1000)
        assert not answer or answer.startswith(b"HTTP/1.1 4")
        assert answer_to(server, b"GET /" + b"x" * 3_000_000 + b" HTTP/1.1\r\n\r\n")[:12] in (b"", b"HTTP/1.1 431")
    assert answer_to(server, b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000).startswith(b"HTTP/1.1 431 ")
    assert psutil.Process(server.process.pid).memory_info().rss - before < 50 * 2**20
    assert server.post(key, [log()]).status_code == 204


def test_a_large_batch_in_one_write_is_not_taken_for_a_large_head(server, key):
    body = body_of(*[log(message="x" * 1000) for _ in range(900)])
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for _ in range(3):
            connection.sendall(head(key, len(body)) + body)
            assert connection.recv(10_000).startswith(b"HTTP/1.1 204 ")


@pytest.mark.once
def test_an_idle_connection_is_kept_for_a_while_and_then_closed(altered_server, key):
    server = altered_server("import ingestcloud.bounds as b; b.HEAD_SECONDS = 2")
    body = body_of(log())
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for _ in range(2):
            connection.sendall(head(key, len(body)) + body)
            assert connection.recv(10_000).startswith(b"HTTP/1.1 204 ")
            time.sleep(1.2)
        connection.sendall(b"POST /v1")  # the time for a head begins with its first byte
        time.sleep(1.2)
        connection.sendall(head(key, len(body))[len(b"POST /v1") :] + body)
        assert connection.recv(10_000).startswith(b"HTTP/1.1 204 ")
        assert connection.recv(10_000) == b""


@pytest.mark.once
@measures_waiting
def test_a_client_that_sends_nothing_or_half_a_request_is_disconnected_and_holds_up_no_one(server, key):
    """Half a head, or half the body of a request for a page."""
    head_of = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx"
    bodies = [head_of.format(path).encode() for path in ("/login/", "/api/v1/devices/register")]
    with ThreadPoolExecutor(80) as pool:
        silent = [pool.submit(answer_to, server) for _ in range(5)]
        late = [pool.submit(answer_to, server, sent) for sent in [b"GET / HTTP/1.1\r\nHost: localh", *bodies] * 25]
        time.sleep(1)
        began = time.monotonic()
        assert httpx.get(f"{server.url}/login/", **HTTP).status_code == 200
        assert server.post(key, [log()]).status_code == 204
        assert_within(2, time.monotonic() - began)
        assert {answer.result() for answer in silent} == {b""}
        assert {answer.result()[:12] for answer in late} == {b"HTTP/1.1 408"}


@measures_waiting
@servers_only
def test_waiting_pages_do_not_hold_up_devices_and_probes(
    start_server, transactional_db, key, device_key, log_in, tenant
):
    """All slots for pages are taken by pages that wait for a lock."""
    server, headers = start_server(), {"Cookie": log_in(tenant)}
    other = database.copy()
    with other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE django_session IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(40) as pool:
            url = f"{server.url}/alerts/"
            pages = [pool.submit(httpx.get, url, headers=headers, **HTTP) for _ in range(40)]
            time.sleep(1)
            for _ in range(10):
                began = time.monotonic()
                assert server.post(key, [log()]).status_code == 204
                assert httpx.get(f"{server.url}/readyz", **HTTP).status_code == 200
                assert_within(2, time.monotonic() - began)
            answers = [page.result() for page in pages]
        cursor.execute("ROLLBACK")
    other.close()
    assert {answer.status_code for answer in answers} == {503}
    assert all(int(answer.headers["Retry-After"]) for answer in answers)
    assert httpx.get(url, headers=headers, **HTTP).status_code == 200
    server.stop()


def test_a_client_that_resets_a_pipeline_causes_no_error(server, key, make_key):
    body = body_of(log())
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
            )  # SO_LINGER: a close is a reset
            connection.sendall((head(key, len(body)) + body) * 20)
            time.sleep(0.002)
    wait_for_batches(1)
    # Of another device: the eight requests that this one may have at once may still be under way.
    assert server.post(make_key()[1], [log()]).status_code == 204


class Workers:
    """`make serve` with two worker processes."""

    def __init__(self, log_file) -> None:
        self.port, self.log_file = free_port(), log_file
        environment = {"DATABASE_URL": test_database_url(), "PORT": str(self.port), "WEB_CONCURRENCY": "2"}
        with log_file.open("wb") as log:
            command = [sys.executable, "-m", "ingestcloud.server"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log)
        self.wait_for_workers()

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def wait_for_workers(self, but: int = 0) -> None:
        deadline = time.monotonic() + 30
        while self.log_file.read_text().count("Application startup complete") < 2 + but:
            assert time.monotonic() < deadline, self.log_file.read_text()
            time.sleep(0.1)

    socket = Server.socket
    post = Server.post

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def serving(transactional_db, tmp_path):
    serving = Workers(tmp_path / "log")
    workers = serving.workers()
    yield serving
    serving.process.kill()
    serving.process.wait()
    for process in {*workers}:
        if process.is_running():
            process.kill()


@servers_only
def test_workers_end_with_their_parent(serving, key, tenant, log_in):
    """They finish their requests and make their pages reconnect; the next server finds the port free."""
    workers = serving.workers()
    assert len(workers) == 2
    with serving.socket(log_in(tenant)) as page:
        serving.process.send_signal(signal.SIGKILL)
        serving.process.wait()
        with pytest.raises(ConnectionClosed) as closed:
            page.recv(timeout=20)
    assert closed.value.rcvd.code == 1012
    _, alive = psutil.wait_procs(workers, 15)
    assert not alive
    with socket.create_server(("127.0.0.1", serving.port)):
        pass


@servers_only
def test_a_worker_that_was_killed_is_replaced(serving, key):
    killed = serving.workers()[0]
    killed.kill()
    serving.wait_for_workers(but=1)
    for _ in range(20):
        assert serving.post(key, [log()]).status_code == 204
    assert len({worker.pid for worker in serving.workers()} - {killed.pid}) == 2


def pages_of(path: str, cookie: str, times: int = 1) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode() * times


HANDSHAKE = (
    b"GET /api/ws/security HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER: a close is a reset


@pytest.fixture
def pool_of_its_own(start_server, transactional_db):
    """A server whose database connections no other test uses."""
    server = start_server()
    yield server
    server.stop()
    assert "Traceback" not in server.log


def assert_pool_is_whole(server: Server, key: str, cookie: str) -> None:
    """As many simultaneous pages as there are connections each get one, and so do devices and probes."""
    with ThreadPoolExecutor(8) as pool:
        page = {"headers": {"Cookie": cookie}, **HTTP}
        answers = list(pool.map(lambda _: httpx.get(f"{server.url}/alerts/", **page), range(40)))
    assert {answer.status_code for answer in answers} == {200}
    assert server.post(key, [log()]).status_code == 204
    assert httpx.get(f"{server.url}/readyz", **HTTP).status_code == 200
    deadline = time.monotonic() + 20  # pages in progress have a transaction, and some may still wait for their turn
    with database.cursor() as cursor:
        while True:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'")
            if cursor.fetchone() == (0,):
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)


@servers_only
@pytest.mark.parametrize("followed_by", ["nothing", "a page", "a handshake"])
@pytest.mark.parametrize("ended_by", ["a close", "a reset"])
def test_a_page_whose_client_leaves_returns_its_connection(pool_of_its_own, key, tenant, log_in, followed_by, ended_by):
    cookie = log_in(tenant)
    page = pages_of("/alerts/", cookie)
    rest = {"nothing": b"", "a page": page, "a handshake": HANDSHAKE}
    for attempt in range(100):
        with socket.create_connection(("127.0.0.1", pool_of_its_own.port)) as connection:
            if ended_by == "a reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.sendall(page + rest[followed_by])
            time.sleep((0, 0.002, 0.01, 0.03)[attempt % 4])
    assert_pool_is_whole(pool_of_its_own, key, cookie)


@servers_only
def test_a_page_that_is_not_read_holds_no_connection(pool_of_its_own, key, tenant, log_in):
    """Each client requests more than its buffers hold and reads nothing, so the next answer waits for it."""
    cookie = log_in(tenant)
    sent = pages_of("/static/admin/js/vendor/jquery/jquery.js", "", 9) + pages_of("/admin/login/", "", 60)
    with ExitStack() as stack:
        for _ in range(30):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", pool_of_its_own.port))
            connection.sendall(sent)
        time.sleep(10)
        assert_pool_is_whole(pool_of_its_own, key, cookie)


def test_a_batch_followed_by_a_handshake_causes_no_error(server, key, make_key):
    """uvicorn may hand the connection to the WebSocket protocol before the batch is answered."""
    body = body_of(log())
    for attempt in range(50):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head(key, len(body)) + body + HANDSHAKE)
            time.sleep((0, 0.002, 0.01)[attempt % 3])
    wait_for_batches(1)
    # Of another device: the eight requests that this one may have at once may still be under way.
    assert server.post(make_key()[1], [log()]).status_code == 204


class StartingWorkers(Workers):
    def wait_for_workers(self, but: int = 0) -> None:
        """Wait until the processes exist; they have yet to load the application."""
        deadline = time.monotonic() + 30
        while len(self.workers()) < 2 + but:
            assert time.monotonic() < deadline, self.log_file.read_text()
            time.sleep(0.02)


@servers_only
@pytest.mark.parametrize("seconds", [0, 1, 2])
def test_workers_end_with_a_parent_that_was_killed_while_they_started(transactional_db, tmp_path, seconds):
    serving = StartingWorkers(tmp_path / "log")
    workers = serving.workers()
    time.sleep(seconds)
    serving.process.kill()
    serving.process.wait()
    _, alive = psutil.wait_procs(workers, 20)
    for worker in alive:
        worker.kill()
    assert not alive


@pytest.mark.parametrize(
    "origin", ["http://[", "http://]", "http://[x]", "http://[::1", "http://localhost:x", "[", "\xff"]
)
def test_an_invalid_origin_is_foreign(server, tenant, log_in, origin):
    request = HANDSHAKE.replace(
        b"\r\n\r\n", f"\r\nCookie: {log_in(tenant)}\r\nOrigin: {origin}\r\n\r\n".encode("latin1")
    )
    assert answer_to(server, request, seconds=5).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("path", ["/v1/nowhere", "/api/v1/nowhere", "/api/v1/devices/register", "/v1/ingest", "/x"])
def test_an_error_keeps_the_security_headers(server, path):
    answer = httpx.delete(f"{server.url}{path}", headers={"Accept": "application/json"}, **HTTP)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) [\w.]+ .+")


def test_each_line_of_the_server_has_the_log_format(start_server, transactional_db):
    """Lines about its start, requests, and what is not a request, whatever a proxy says about the client."""
    server = start_server(FORWARDED_ALLOW_IPS="*")
    answer_to(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: \x9b[2J\x85x\r\nConnection: close\r\n\r\n")
    answer_to(server, b"hello\r\n\r\n")
    server.stop()
    assert re.search(r' INFO uvicorn.access .*\\x9b\[2J\\x85x:0 - "GET /healthz HTTP/1.1" ', server.log)
    for start in ("Uvicorn running on", "is not HTTP/1.1", "Finished server process"):
        assert start in server.log
    for line in server.log.split("\n")[:-1]:
        assert LINE.fullmatch(line), line


@servers_only
def test_each_line_of_workers_and_their_parent_has_the_log_format(serving):
    serving.process.terminate()
    serving.process.wait(20)
    printed = serving.log_file.read_text()
    assert "Started parent process" in printed
    for line in printed.split("\n")[:-1]:
        assert LINE.fullmatch(line), line


SWALLOW_A_CANCELLATION = """
import asyncio, contextlib
import ingestcloud.asgi as site

async def swallow_one():
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()

tasks = []
site.end_with_parent = lambda: tasks.append(asyncio.get_running_loop().create_task(swallow_one()))
"""


@pytest.mark.once
def test_a_server_ends_although_a_task_lost_its_cancellation(altered_server):
    """By Ctrl-C; uvicorn ends by SIGTERM without closing its loop."""
    server = altered_server(SWALLOW_A_CANCELLATION)
    server.process.send_signal(signal.SIGINT)
    server.process.wait(timeout=30)
