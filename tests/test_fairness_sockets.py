"""What one login does with its sockets, others do not feel."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import timedelta

import pytest
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import OperationalError, connection, connections
from django.utils import timezone
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from alerts import logins
from alerts.logins import MAX_SOCKETS, Handshake, user_of
from common.database import drain_pool
from common.sessions import NOTE_USE_EVERY_SECONDS, USED_AT
from tests.support.fairness import Others
from tests.support.servers import servers_only
from tests.support.sockets import ping

pytestmark = pytest.mark.django_db(transaction=True)


def test_of_too_many_sockets_of_a_login_the_oldest_is_closed(server, tenant, log_in):
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


def test_a_place_is_free_again_when_a_socket_has_gone(server, tenant, log_in):
    cookie = log_in(tenant)
    with server.socket(cookie) as first:
        for _ in range(MAX_SOCKETS + 5):
            with server.socket(cookie) as socket:
                ping(socket)
        ping(first)


class Pinging(threading.Thread):
    """Sends pings as fast as it can, several before it looks for an answer."""

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


def test_a_login_that_pings_as_fast_as_it_can_holds_up_nobody(server, tenant, log_in):
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
    assert max(waits) < 1


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame as it goes over the wire, masked by zeros."""
    return bytes([fin << 7 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


BEGIN = frame(1, fin=False)  # of a message in fragments
FLOODS = {
    "pings": frame(9),
    "pongs": frame(10),
    "texts": frame(1, b"x"),
    "empty fragments": frame(0, fin=False),
}


class Flooding(threading.Thread):
    """Sends the same bytes without a pause, on a new socket when one was closed."""

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


@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_frames_holds_up_nobody(server, key, tenant, log_in, kind, count):
    cookie = log_in(tenant)
    first = BEGIN if kind == "empty fragments" else b""
    floods = [Flooding(server, cookie, first, FLOODS[kind]) for _ in range(count)]
    with Others(server, key) as others:
        for flood in floods:
            flood.start()
        time.sleep(3)
        for flood in floods:
            flood.ended.set()
    for flood in floods:
        flood.join()
    assert others.answers == {204}
    assert max(others.waits) < 1


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_frames_ends_its_socket_and_no_other(server, tenant, log_in, kind):
    cookie = log_in(tenant)
    with server.socket(cookie) as flood, server.socket(cookie) as other:
        flood.socket.sendall(BEGIN if kind == "empty fragments" else b"")
        flood.socket.sendall(FLOODS[kind] * 2000)
        with pytest.raises(ConnectionClosed) as closed:
            flood.recv(timeout=10)
        assert closed.value.rcvd.code == 1008
        ping(other)


def test_a_message_in_endless_fragments_ends_its_socket(server, tenant, log_in):
    """As slowly as its client may send."""
    with server.socket(log_in(tenant)) as socket:
        socket.socket.sendall(BEGIN + FLOODS["empty fragments"] * 200)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
    assert closed.value.rcvd.code == 1008


def test_three_hundred_handshakes_at_once_are_answered(server, tenant, log_in):
    cookies = [log_in(tenant) for _ in range(20)]

    def open_and_ping(number: int) -> float:
        began = time.monotonic()
        with server.socket(cookies[number % len(cookies)]) as socket:
            ping(socket)
        return time.monotonic() - began

    with ThreadPoolExecutor(50) as pool:
        assert max(pool.map(open_and_ping, range(300))) < 10


@servers_only
def test_handshakes_while_the_database_is_away_are_503_and_one_line(start_server, transactional_db, tenant, log_in):
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
                assert set(pool.map(refused, range(40))) == {503}
        finally:
            cursor.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    connection.close()
    drain_pool()
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


async def test_what_a_client_waited_for_that_has_left_is_dropped(monkeypatch):
    """Its handshake ends at once, and no query is begun for it."""
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


async def test_a_server_that_cannot_answer_a_handshake_with_503_refuses_it(monkeypatch):
    async def fails(*arguments: object) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(logins, "run_query", fails)
    communicator = WebsocketCommunicator(Handshake(None), "/api/ws/security")  # type: ignore[arg-type]
    communicator.scope["cookies"] = {}
    assert await communicator.connect() == (False, 1013)


def test_an_open_page_uses_its_session(tenant, log_in):
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
