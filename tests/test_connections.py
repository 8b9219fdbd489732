"""Slow and broken connections, and servers that end: every batch is stored once, and no other device waits."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import ConnectionClosed

from ingest.models import IngestBatch, IngestEvent
from tests.support.events import alert, log
from tests.support.live import ROOT, Server
from tests.support.raw_requests import body_of, head, wait_for_batches
from tests.support.servers import OURS, own_servers
from tests.support.sockets import receive

pytestmark = pytest.mark.django_db(transaction=True)

SERVICE_RESTART = 1012  # tells the console, and any other client, to reconnect


def test_a_body_that_comes_byte_by_byte_is_given_up_and_delays_nobody(start_server, transactional_db, key):
    server = start_server(INGEST_BODY_SECONDS="1")
    slow, others = body_of(), 0
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head(key, len(slow)))
        connection.settimeout(0.2)
        answer = b""
        for byte in slow[:-1]:
            connection.sendall(bytes([byte]))
            assert server.post(key, content=body_of()).status_code == 204
            others += 1
            try:
                answer = connection.recv(10_000)
            except TimeoutError:
                continue
            break
        while more := connection.recv(10_000):  # to the end: the rest of the body must not be taken for a request
            answer += more
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"body_too_slow" in answer
    assert IngestBatch.objects.count() == others > 0
    assert server.post(key, content=slow).status_code == 204
    assert IngestBatch.objects.count() == others + 1
    server.stop()


def test_the_server_waits_for_a_slow_but_steady_body(start_server, transactional_db, key):
    server = start_server(INGEST_BODY_SECONDS="1")
    body = body_of(log(message="x" * 2000))
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head(key, len(body)))
        for start in range(0, len(body), 100):  # for longer than a second
            connection.sendall(body[start : start + 100])
            time.sleep(0.08)
        assert connection.recv(10_000).startswith(b"HTTP/1.1 204 ")
    server.stop()


def test_a_batch_is_stored_even_if_its_sender_hangs_up_before_the_answer(server, key):
    bodies = [body_of() for _ in range(20)]
    for number, body in enumerate(bodies):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head(key, len(body)) + body)
            wait_for_batches(number + 1)
    assert {server.post(key, content=body).status_code for body in bodies} == {204}
    assert IngestBatch.objects.count() == IngestEvent.objects.count() == 20


def test_two_hundred_devices_can_send_at_the_same_time(server, make_key):
    keys = [make_key()[1] for _ in range(200)]
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda key: server.post(key, [log(), alert()]), keys))
    assert {answer.status_code for answer in answers} == {204}
    assert IngestBatch.objects.values("device").distinct().count() == 200


class AnswerCut:
    """Forwards one connection to `server`, and kills the server when it begins to answer, so the answer is lost."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        client, _ = self.listener.accept()
        with client, self.listener, socket.create_connection(("127.0.0.1", self.server.port)) as upstream:
            threading.Thread(target=self.pass_on, args=[client, upstream], daemon=True).start()
            assert upstream.recv(1)
            os.kill(self.server.process.pid, signal.SIGKILL)
            client.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def pass_on(client: socket.socket, upstream: socket.socket) -> None:
        while data := client.recv(65536):
            upstream.sendall(data)


def test_a_server_killed_between_commit_and_answer(start_server, transactional_db, key, tenant, log_in):
    """The device gets no answer and sends the same bytes again: they are stored once, and the alert is shown once."""
    body, server = body_of(alert("once")), start_server()
    cut = AnswerCut(server)
    with socket.create_connection(("127.0.0.1", cut.port), timeout=20) as connection:
        connection.sendall(head(key, len(body)) + body)
        assert connection.recv(1) == b""
    assert IngestBatch.objects.count() == 1
    again = start_server()
    with again.socket(log_in(tenant), query="?since=0") as page:
        assert again.post(key, content=body).status_code == 204
        assert again.post(key, [alert("next")]).status_code == 204
        assert [data["title"] for data in receive(page, 2)] == ["once", "next"]
    assert IngestBatch.objects.count() == IngestEvent.objects.count() == 2
    again.stop()


def test_a_server_told_to_stop_answers_and_tells_its_pages_to_reconnect(
    start_server, transactional_db, key, tenant, log_in
):
    server = start_server()
    with server.socket(log_in(tenant)) as page, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(server.post, key, content=body_of()) for _ in range(100)]
        wait_for_batches(8)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            page.recv(timeout=10)
        assert closed.value.rcvd.code == SERVICE_RESTART
    codes = [answer.result().status_code for answer in answers if not answer.exception()]
    assert set(codes) == {204}
    assert IngestBatch.objects.count() == len(codes)  # every stored batch was answered
    assert server.process.wait(15) is not None


@pytest.mark.outage
@own_servers
def test_random_faults_lose_nothing():
    """A few rounds of `make torture`, on its own servers."""
    others = ("DATABASE_URL", "REDIS_URL", OURS)
    environment = {name: value for name, value in os.environ.items() if name not in others}
    command = [sys.executable, "-m", "tools.torture", "6"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert run.stdout, run.stderr
    last = run.stdout.splitlines()[-1]
    assert re.fullmatch(r"rounds=6 acknowledged=[1-9]\d* lost=0 doubled=0 missed_alerts=0 missed_groups=0", last), (
        run.stdout + run.stderr
    )
    assert run.returncode == 0, run.stdout
