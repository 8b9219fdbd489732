"""Whatever one login does with its sockets, others are not affected."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta

import pytest
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import InternalError, OperationalError, connection, connections, transaction
from django.utils import timezone
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.uri import parse_uri

from alerts import logins
from alerts.logins import MAX_SOCKETS, Handshake, user_of
from common.asgi import Send
from common.sessions import NOTE_USE_EVERY_SECONDS, USED_AT, note_use
from tests.support.fairness import Others, assert_within, measures_waiting
from tests.support.servers import servers_only
from tests.support.sockets import ping

pytestmark = pytest.mark.django_db(transaction=True)


def test_when_a_login_opens_too_many_sockets_the_oldest_is_closed(server, tenant, log_in):
    cookie, other = log_in(tenant), log_in(tenant)
    with ExitStack() as stack:
        others = stack.enter_context(server.socket(other))
        sockets = [stack.enter_context(server.socket(cookie)) for _ in range(MAX_SOCKETS)]
        ping(sockets[0])
        newest = stack.enter_context(server.socket(cookie))
        with pytest.raises(ConnectionClosed) as closed:
            sockets[0].recv(timeout=10)
        assert closed.value.rcvd.code == 4429
        for socket in (others, sockets[1], newest):
            ping(socket)


def test_a_socket_that_has_closed_no_longer_counts(server, tenant, log_in):
    cookie = log_in(tenant)
    with server.socket(cookie) as first:
        for _ in range(MAX_SOCKETS + 5):
            with server.socket(cookie) as socket:
                ping(socket)
        ping(first)


class Pinging(threading.Thread):
    """Sends pings as fast as it can, several before it reads an answer."""

    def __init__(self, socket: ClientConnection) -> None:
        super().__init__(daemon=True)
        self.socket, self.ended = socket, threading.Event()

    def run(self) -> None:
        try:
            while not self.ended.is_set():
                for _ in range(3):
                    self.socket.send('{"type":"ping"}')
                self.socket.recv(timeout=10)
        except (ConnectionClosed, TimeoutError):
            return


@measures_waiting
def test_a_login_that_pings_as_fast_as_it_can_does_not_delay_others(server, tenant, log_in):
    cookie, other = log_in(tenant), log_in(tenant)
    with ExitStack() as stack:
        others = stack.enter_context(server.socket(other))
        floods = [Pinging(stack.enter_context(server.socket(cookie))) for _ in range(MAX_SOCKETS)]
        for flood in floods:
            flood.start()
        waits = []
        for _ in range(20):
            began = time.monotonic()
            ping(others)
            waits.append(time.monotonic() - began)
            time.sleep(0.05)
        for flood in floods:
            flood.ended.set()
    assert_within(1, max(waits))


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame as it goes over the wire, masked with zeros."""
    return bytes([fin << 7 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


BEGIN = frame(1, fin=False)  # the first fragment of a message
FLOODS = {
    "pings": frame(9),
    "pongs": frame(10),
    "texts": frame(1, b"x"),
    "empty fragments": frame(0, fin=False),
}


class Flooding(threading.Thread):
    """Sends the same bytes without a pause, and opens a new socket whenever one is closed."""

    def __init__(self, server, cookie: str, first: bytes, repeated: bytes) -> None:
        super().__init__(daemon=True)
        self.server, self.cookie, self.first, self.repeated = server, cookie, first, repeated * 40_000
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            with suppress(OSError, EOFError, ConnectionClosed, InvalidStatus), self.server.socket(self.cookie) as flood:
                flood.socket.settimeout(1)
                flood.socket.sendall(self.first)
                while not self.ended.is_set():
                    flood.socket.sendall(self.repeated)


@pytest.mark.once
@measures_waiting
@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_frames_does_not_delay_others(server, key, tenant, log_in, kind, count):
    cookie = log_in(tenant)
    first = BEGIN if kind == "empty fragments" else b""
    floods = [Flooding(server, cookie, first, FLOODS[kind]) for _ in range(count)]
    with Others(server, key) as others:
        for flood in floods:
            flood.start()
        time.sleep(1.5)
        for flood in floods:
            flood.ended.set()
    for flood in floods:
        flood.join()
    assert others.answers == {204}
    assert_within(1, max(others.waits))


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_frames_closes_its_socket_and_no_other(server, tenant, log_in, kind):
    cookie = log_in(tenant)
    with server.socket(cookie) as flood, server.socket(cookie) as other:
        flood.socket.sendall(BEGIN if kind == "empty fragments" else b"")
        flood.socket.sendall(FLOODS[kind] * 2000)
        with pytest.raises(ConnectionClosed) as closed:
            flood.recv(timeout=10)
        assert closed.value.rcvd.code == 1008
        ping(other)


def test_a_message_in_endless_fragments_closes_its_socket(server, tenant, log_in):
    """However slowly its client sends them."""
    with server.socket(log_in(tenant)) as socket:
        socket.socket.sendall(BEGIN + FLOODS["empty fragments"] * 200)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
    assert closed.value.rcvd.code == 1008


def test_a_rush_of_three_hundred_handshakes_is_answered(server, tenant, log_in):
    cookies = [log_in(tenant) for _ in range(20)]

    def open_and_ping(number: int) -> float:
        began = time.monotonic()
        with server.socket(cookies[number % len(cookies)]) as socket:
            ping(socket)
        return time.monotonic() - began

    with ThreadPoolExecutor(50) as pool:
        assert max(pool.map(open_and_ping, range(300))) < 10


@contextmanager
def locked_memberships() -> Iterator[None]:
    """Lock the memberships, so that handshakes wait, as they would during a migration."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE memberships IN ACCESS EXCLUSIVE MODE")
        yield


@measures_waiting
@servers_only
def test_handshakes_of_a_login_that_wait_for_a_lock_are_answered(server, tenant, log_in):
    """They wait for one another, except those beyond MAX_SOCKETS, which are refused without waiting."""
    cookie = log_in(tenant)

    def refused(number: int) -> float:
        began = time.monotonic()
        with pytest.raises(InvalidStatus) as refusal:
            server.socket(cookie)
        assert refusal.value.response.status_code == 503
        return time.monotonic() - began

    count = MAX_SOCKETS + 10
    with locked_memberships(), ThreadPoolExecutor(count) as pool:
        waits = sorted(pool.map(refused, range(count)))
    assert_within(3, waits[9])
    assert_within(11, waits[-1])
    with server.socket(cookie) as socket:
        ping(socket)


@servers_only
def test_a_client_that_sends_frames_before_its_handshake_is_answered_is_cut_off(server, tenant, log_in):
    handshake = ClientProtocol(parse_uri(f"ws://127.0.0.1:{server.port}/api/ws/security"), origin=server.url)
    request = handshake.connect()
    request.headers["Cookie"] = log_in(tenant)
    handshake.send_request(request)
    with locked_memberships(), socket.create_connection(("127.0.0.1", server.port), timeout=3) as client:
        client.sendall(b"".join(handshake.data_to_send()))
        time.sleep(0.5)  # because data that comes with the request is dropped
        client.sendall(FLOODS["pings"])
        with suppress(ConnectionResetError):
            assert client.recv(4096) == b""


@servers_only
def test_handshakes_while_the_database_is_down_are_503_and_barely_logged(
    start_server, transactional_db, tenant, log_in
):
    server, cookie, name = start_server(), log_in(tenant), connection.settings_dict["NAME"]
    with server.socket(cookie) as socket:
        ping(socket)
    with connections["default"]._nodb_cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

            def refused(number: int) -> int:
                with pytest.raises(InvalidStatus) as refusal:
                    server.socket(cookie)
                return refusal.value.response.status_code

            with ThreadPoolExecutor(20) as pool:
                assert set(pool.map(refused, range(20))) == {503}
        finally:
            cursor.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    connection.close()
    assert "Traceback" not in server.log
    assert 1 <= server.log.count("Handshakes are refused") <= 3
    deadline = time.monotonic() + 30
    while True:
        try:
            with server.socket(cookie) as socket:
                ping(socket)
            break
        except InvalidStatus:
            assert time.monotonic() < deadline
    server.stop()


async def test_the_handshake_of_a_client_that_has_left_is_dropped(monkeypatch):
    """The handshake ends immediately, and no query is started for it."""
    waiting, dropped = asyncio.Event(), asyncio.Event()

    async def for_long(*arguments: object) -> None:
        waiting.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            dropped.set()
            raise

    monkeypatch.setattr(logins, "run_query", for_long)
    communicator = WebsocketCommunicator(Handshake(None), "/api/ws/security")  # type: ignore[arg-type]
    communicator.scope["cookies"] = {}
    await communicator.send_input({"type": "websocket.connect"})
    await asyncio.wait_for(waiting.wait(), 10)
    await communicator.send_input({"type": "websocket.disconnect", "code": 1006})
    await asyncio.wait_for(dropped.wait(), 10)
    await communicator.wait(10)


async def test_a_handshake_that_is_answered_is_not_refused_too():
    async def accept_and_fail(scope: dict, receive: object, send: Send) -> None:
        await send({"type": "websocket.accept"})
        raise OperationalError("gone")

    communicator = WebsocketCommunicator(Handshake(accept_and_fail), "/api/ws/security")
    communicator.scope["cookies"] = {}
    assert (await communicator.connect())[0]
    with pytest.raises(OperationalError, match="gone"):
        await communicator.wait(10)
    assert communicator.output_queue.empty()


async def test_a_server_that_cannot_answer_a_handshake_with_503_refuses_it(monkeypatch):
    async def fails(*arguments: object) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(logins, "run_query", fails)
    communicator = WebsocketCommunicator(Handshake(None), "/api/ws/security")  # type: ignore[arg-type]
    communicator.scope["cookies"] = {}
    assert await communicator.connect() == (False, 1013)


def test_an_open_page_keeps_its_session_alive(tenant, log_in):
    _, _, key = log_in(tenant).partition("=")
    user = user_of(key)
    assert user == User.objects.get()
    session = Session.objects.get()
    ends = session.expire_date
    user_of(key)
    session.refresh_from_db()
    assert session.expire_date == ends  # a write now and then is enough
    data = session.get_decoded()
    store = Session.get_session_store_class()(key)
    store.update(data | {USED_AT: data[USED_AT] - NOTE_USE_EVERY_SECONDS})
    store.save()
    Session.objects.update(expire_date=timezone.now() + timedelta(minutes=1))
    user_of(key)
    session.refresh_from_db()
    assert session.expire_date > timezone.now() + timedelta(hours=11)
    Session.objects.all().delete()
    assert not user_of(key).is_authenticated
    assert not Session.objects.exists()


def make_due(key: str) -> None:
    """Make the session due, so that its next use is written."""
    store = Session.get_session_store_class()(key)
    store[USED_AT] = 0
    store.save()


@servers_only
def test_a_session_that_cannot_be_extended_has_not_ended(tenant, log_in):
    _, _, key = log_in(tenant).partition("=")
    make_due(key)
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")  # like a standby
        try:
            with pytest.raises(InternalError):
                user_of(key)
        finally:
            cursor.execute("SET default_transaction_read_only = off")
    assert user_of(key).is_authenticated


def test_a_session_that_ends_while_it_is_being_extended_has_ended(tenant, log_in, monkeypatch):
    _, _, key = log_in(tenant).partition("=")
    make_due(key)

    def logs_out_elsewhere(session: object) -> None:
        Session.objects.all().delete()
        note_use(session)

    monkeypatch.setattr(logins, "note_use", logs_out_elsewhere)
    assert not user_of(key).is_authenticated
    assert not Session.objects.exists()


def test_a_database_that_cannot_store_sessions_is_503_and_1011(server, tenant, log_in):
    """503 for a page that is being opened, and 1011 for one that is open."""
    cookie = log_in(tenant)
    with server.socket(cookie) as socket:
        ping(socket)
        make_due(cookie.partition("=")[2])
        with locked_sessions():
            socket.send('{"type":"ping"}')
            with pytest.raises(InvalidStatus) as refusal:
                server.socket(cookie)
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=10)
    assert refusal.value.response.status_code == 503
    assert closed.value.rcvd.code == 1011
    with server.socket(cookie) as socket:
        ping(socket)


@contextmanager
def locked_sessions() -> Iterator[None]:
    """Sessions can be read but not written; on SQLite, because this transaction holds the only write lock."""
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("LOCK TABLE django_session IN EXCLUSIVE MODE")
        yield
