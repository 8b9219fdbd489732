"""Faults of real components: nothing acknowledged is lost, and a refusal tells the client to retry."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest
from django.db import OperationalError, connection, connections
from django.utils import timezone

from alerts.models import SecurityAlert
from devices.models import DeviceKey
from ingest.backlog import backlog
from ingest.checking import check_batch
from ingest.models import IngestBatch, IngestEvent
from ingest.storing.store import sequence_watch
from ingest.storing.writer import STORE_SECONDS, Job, writer
from tests.support.assertions import assert_problem
from tests.support.events import alert, log
from tests.support.live import HTTP
from tests.support.sequences import set_back
from tests.support.servers import embedded_only, servers_only
from tests.support.sockets import ping, receive
from tests.support.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def assert_come_again(response) -> None:
    assert_problem(response, 503, "storage_unavailable")
    assert int(response.headers["Retry-After"]) > 0


@servers_only
def test_connections_cut_by_the_database_are_reopened_unnoticed(the_server, transactional_db, key, make_key):
    for _ in range(3):
        keys = [key, *(make_key()[1] for _ in range(30))]  # each needs a look-up, so all look-up threads are used
        with ThreadPoolExecutor(30) as pool:
            assert {answer.status_code for answer in pool.map(lambda key: the_server.post(key, [log()]), keys)} == {204}
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert the_server.post(key, [log()]).status_code == 204
    assert IngestBatch.objects.count() == 3 * 32


@servers_only
def test_answers_are_503_only_while_the_database_refuses_connections(the_server, transactional_db, key):
    """To a client, ALLOW_CONNECTIONS off looks like a database that is shutting down or being restored."""
    name = connection.settings_dict["NAME"]
    body = json.dumps([log(), alert()]).encode()
    assert the_server.post(key, [log()]).status_code == 204
    with connections["default"]._nodb_cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            assert_come_again(the_server.post(key, content=body))
            assert_come_again(the_server.post("dvc_" + "x" * 43, content=body))
            page = httpx.get(f"{the_server.url}/login/", **HTTP)
            assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
        finally:
            cursor.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    connection.close()
    deadline = time.monotonic() + 30
    while the_server.post(key, content=body).status_code != 204:
        assert time.monotonic() < deadline
    assert IngestBatch.objects.count() == 2


@servers_only
def test_the_first_query_after_all_connections_were_cut_succeeds(device_key):
    """However many were idle: the pool alone finds two of them in its three seconds."""
    together = threading.Barrier(8)

    def use_one(_: int) -> None:
        DeviceKey.objects.get()
        together.wait(30)
        connection.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use_one, range(8)))
    name = connection.settings_dict["NAME"]
    connection.close()
    with connection._nodb_cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        assert len(cursor.fetchall()) >= 8
    assert DeviceKey.objects.get() == device_key


@embedded_only
def test_answers_are_503_only_while_the_database_is_locked(the_server, transactional_db, key):
    body = json.dumps([log()]).encode()
    assert the_server.post(key, [log()]).status_code == 204
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        assert_come_again(the_server.post(key, content=body))
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert the_server.post(key, content=body).status_code == 204


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(start_server, transactional_db, make_key):
    server = start_server()
    keys = [make_key()[1] for _ in range(4)]
    acknowledged: list[int] = []

    def send(number: int) -> None:
        try:
            if server.post(keys[number % 4], [log(number=number), alert()]).status_code == 204:
                acknowledged.append(number)
        except Exception:  # noqa: BLE001  the server is gone: not acknowledged
            return
        if len(acknowledged) == 60:
            os.kill(server.process.pid, signal.SIGKILL)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(200)))
    stored = {data["number"] for data in IngestEvent.objects.filter(kind="log").values_list("data", flat=True)}
    assert len(acknowledged) >= 60
    assert stored >= set(acknowledged)
    assert SecurityAlert.objects.count() == IngestBatch.objects.count() == len(stored)


def test_a_server_told_to_stop_stores_what_it_has_accepted(start_server, transactional_db, make_key):
    server = start_server()
    key = make_key()[1]
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(server.post, key, [log() for _ in range(200)]) for _ in range(8)]
        while not IngestBatch.objects.exists():
            time.sleep(0.01)
        server.stop()
        done = sum(1 for answer in answers if not answer.exception() and answer.result().status_code == 204)
    assert IngestBatch.objects.count() >= done > 0


def job_of(key: DeviceKey, *events: dict) -> Job:
    """A job whose event loop is gone."""
    loop = asyncio.new_event_loop()
    batch = check_batch(json.dumps(events).encode(), key, None, timezone.now())
    job = Job(batch, loop, loop.create_future(), loop.time() + STORE_SECONDS)
    loop.close()
    backlog.acquire(key.device_id, job.size)
    return job


def test_a_request_whose_event_loop_is_gone_does_not_stop_the_writer(transactional_db, client, device_key):
    try:
        writer._jobs.put(job_of(device_key))
        headers = {"X-Device-Key": device_key.plaintext}
        for _ in range(3):  # one more than there are writers
            answer = client.post("/v1/ingest", json.dumps([log()]), content_type="application/json", headers=headers)
            assert answer.status_code == 204
        assert all(thread.is_alive() for thread in writer._threads)
    finally:
        writer.close()


@pytest.fixture
def new_writer(transactional_db):
    """The writer, with threads that start only once the test has arranged their faults."""
    writer.close()
    yield writer
    writer.close()


def test_a_connection_that_can_not_be_given_up_does_not_stop_the_writer(new_writer, client, device_key, monkeypatch):
    def fail(*arguments: object) -> None:
        raise OperationalError("a fault")

    headers, held = {"X-Device-Key": device_key.plaintext}, backlog.held
    with monkeypatch.context() as faults:
        faults.setattr("ingest.storing.writer.store_batches", fail)
        broken = SimpleNamespace(vendor=connection.vendor, connection=None, close=fail)
        faults.setattr("ingest.storing.writer.connection", broken)
        for _ in range(3):  # one more than there are writers
            began = time.monotonic()
            assert_come_again(client.post("/v1/ingest", "[]", content_type="application/json", headers=headers))
            assert time.monotonic() - began < STORE_SECONDS / 2  # not only when its time is up
    assert client.post("/v1/ingest", "[]", content_type="application/json", headers=headers).status_code == 204
    assert backlog.held == held


def test_a_connection_that_can_not_be_closed_does_not_stop_the_writer(new_writer, client, device_key, monkeypatch):
    closed: list[int] = []

    def fail() -> None:
        closed.append(1)
        raise OperationalError("a fault")

    headers = {"X-Device-Key": device_key.plaintext}
    with monkeypatch.context() as faults:
        faults.setattr("ingest.storing.writer.IDLE_SECONDS", 0.01)
        faults.setattr("ingest.storing.writer.connection", SimpleNamespace(vendor=connection.vendor, close=fail))
        assert client.post("/v1/ingest", "[]", content_type="application/json", headers=headers).status_code == 204
        while len(closed) < 5:
            assert all(thread.is_alive() for thread in writer._threads)
            time.sleep(0.01)
    assert client.post("/v1/ingest", "[]", content_type="application/json", headers=headers).status_code == 204


def test_a_group_does_not_wait_for_ever_behind_one_that_is_stuck(new_writer, client, device_key, monkeypatch):
    monkeypatch.setattr("ingest.storing.writer.TURN_SECONDS", 0.01)
    headers = {"X-Device-Key": device_key.plaintext}
    with writer._turn:
        assert client.post("/v1/ingest", "[]", content_type="application/json", headers=headers).status_code == 204


def test_a_batch_that_waits_when_the_writer_is_closed_is_stored(new_writer, device_key, monkeypatch):
    monkeypatch.setattr("ingest.storing.writer.TURN_SECONDS", 60.0)
    closing = threading.Thread(target=writer.close)
    with writer._turn:
        writer._start()
        writer._jobs.put(job_of(device_key, log()))
        wait_for(lambda: writer._jobs.empty())  # a thread has the batch, and waits for its turn
        closing.start()
        wait_for(lambda: not writer._jobs.empty())  # its next job is the mark that ends it
    closing.join()
    assert IngestEvent.objects.count() == 1
    assert writer._jobs.empty()


def test_nothing_is_stored_for_a_request_that_was_told_to_come_again(new_writer, device_key):
    held, late = backlog.held, job_of(device_key, log())
    late.give_up()
    writer._jobs.put(late)
    writer._start()
    writer.close()
    assert isinstance(late.future.exception(), OperationalError)
    assert not IngestEvent.objects.exists()
    assert backlog.held == held


def test_an_answer_that_came_just_in_time_stays(device_key):
    job = job_of(device_key)
    job.future.set_result(None)
    job.give_up()
    assert job.future.exception() is None
    backlog.release(device_key.device_id, job.size)


def test_event_loops_that_start_the_writer_at_the_same_time_share_its_threads(new_writer):
    lock, started = writer._lock, []

    @contextlib.contextmanager
    def held_by_another() -> Iterator[None]:
        writer._lock = lock
        writer._start()
        started.extend(writer._threads)
        yield

    writer._lock = held_by_another()
    writer._start()
    assert writer._threads == started


@servers_only
def test_a_taken_id_is_503_while_the_sequence_can_not_be_set_forward(
    new_writer, client, device_key, monkeypatch, caplog
):
    def fail() -> None:
        raise OperationalError("a fault")

    def post():
        body, headers = json.dumps([log()]), {"X-Device-Key": device_key.plaintext}
        return client.post("/v1/ingest", body, content_type="application/json", headers=headers)

    assert [post().status_code for _ in range(2)] == [204, 204]
    set_back("ingest_batches")
    with monkeypatch.context() as faults:
        faults.setattr(sequence_watch, "_next", time.monotonic() + 60)
        faults.setattr("ingest.storing.writer.repair_sequences", fail)
        assert_come_again(post())
    assert "Traceback" not in caplog.text
    assert post().status_code == 204
    assert IngestEvent.objects.count() == 3


@servers_only
def test_a_page_opened_while_redis_is_down_is_live_when_it_is_back(start_server, transactional_db, key, tenant, log_in):
    from tests.support.servers import start_redis_server

    redis = start_redis_server()
    port = redis.port
    server = start_server(REDIS_URL=redis.connection_url)
    redis.stop()
    with server.socket(log_in(tenant)) as socket:
        assert server.post(key, [alert("stored meanwhile")]).status_code == 204
        redis = start_redis_server(port)
        assert receive(socket, 1)[0]["title"] == "stored meanwhile"  # without a ping
        assert server.post(key, [alert("live")]).status_code == 204
        assert receive(socket, 1)[0]["title"] == "live"
    server.stop()
    redis.stop()


@servers_only
def test_redis_down_loses_no_alert_and_open_pages_catch_up(start_server, transactional_db, key, tenant, log_in):
    from tests.support.servers import start_redis_server

    redis = start_redis_server()
    port = redis.port
    server = start_server(REDIS_URL=redis.connection_url)
    with server.socket(log_in(tenant)) as socket:
        server.post(key, [alert("before")])
        assert receive(socket, 1)[0]["title"] == "before"
        redis.stop()
        assert server.post(key, [alert("while it is down")]).status_code == 204
        socket.send('{"type":"ping"}')
        assert receive(socket, 1)[0]["title"] == "while it is down"
        assert json.loads(socket.recv(timeout=10)) == {"type": "pong"}
        with server.socket(log_in(tenant), query="?since=0") as another:
            assert [data["title"] for data in receive(another, 2)] == ["before", "while it is down"]
        redis = start_redis_server(port)
        deadline = time.monotonic() + 20
        while True:  # until the layer has subscribed again; a ping never waits for that
            server.post(key, [alert("after"), log()])
            try:
                frame = json.loads(socket.recv(timeout=1))
                break
            except TimeoutError:
                assert time.monotonic() < deadline
        assert frame["data"]["title"] == "after"
        ping_until_quiet(socket)
    server.stop()
    redis.stop()


def ping_until_quiet(socket) -> None:
    socket.send('{"type":"ping"}')
    while json.loads(socket.recv(timeout=10))["type"] != "pong":
        pass
    ping(socket)


def test_daphne_serves_batches_and_sockets_too(start_server, transactional_db, key, tenant, log_in):
    daphne = start_server("daphne")
    with daphne.socket(log_in(tenant)) as socket:
        assert daphne.post(key, [alert("through daphne")]).status_code == 204
        assert receive(socket, 1)[0]["title"] == "through daphne"
    assert_problem(daphne.post(key, content=b"{"), 400, "malformed_json")
    assert daphne.post(key, content=iter([b"[", b"]"])).status_code == 204
    daphne.stop()
