"""`/api/ws/security`: who may listen, and that they miss nothing."""

import asyncio
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
import time_machine
from channels.db import database_sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.utils import timezone
from websockets.exceptions import ConnectionClosed, InvalidStatus

from alerts import consumers, live_socket
from alerts.broadcast import broadcast
from alerts.consumers import SecurityAlertConsumer
from alerts.live_socket import INBOX_LIMIT
from alerts.logins import with_login
from alerts.models import SecurityAlert
from common.sessions import NOTE_USE_EVERY_SECONDS, USED_AT
from devices.models import DeviceKey
from ingest.checking import check_batch
from ingest.storing.store import store_batches
from tenants.models import Tenant
from tests.support.alert_rows import Backup
from tests.support.events import alert, log
from tests.support.servers import servers_only
from tests.support.sockets import ping, receive

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_alert_reaches_its_tenants_analyst(server, key, tenant, device_key, log_in):
    with server.socket(log_in(tenant)) as socket:
        server.post(key, [log(), alert("Port scan", source_ip="10.0.0.9", severity="critical"), log()])
        (data,) = receive(socket, 1)
    stored = SecurityAlert.objects.get()
    assert data == {
        "id": stored.pk,
        "tenant": {"slug": tenant.slug, "name": tenant.name},
        "device": {"id": device_key.device.pk, "name": device_key.device.name},
        "timestamp": "2026-06-06T10:00:00+00:00",
        "received_at": stored.received_at.isoformat(),
        "title": "Port scan",
        "severity": "critical",
        "source_ip": "10.0.0.9",
        "destination_ip": None,
        "description": "",
        "status": "open",
    }


def test_an_alert_reaches_no_other_tenant(server, key, tenant, make_tenant, log_in):
    with server.socket(log_in(make_tenant())) as other, server.socket(log_in(tenant)) as own:
        server.post(key, [alert()])
        receive(own, 1)
        ping(other)  # nothing came before the pong


def test_a_superuser_gets_the_alerts_of_every_tenant(server, make_key, log_in):
    with server.socket(log_in(superuser=True)) as socket:
        for title in ("one", "two"):
            server.post(make_key()[1], [alert(title)])
        assert [data["title"] for data in receive(socket, 2)] == ["one", "two"]


def test_a_member_of_two_tenants_gets_the_alerts_of_both_in_id_order(server, make_tenant, make_key, log_in):
    tenants = [make_tenant(), make_tenant()]
    keys = [make_key(tenant)[1] for tenant in tenants]
    with server.socket(log_in(*tenants)) as socket, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: server.post(keys[n % 2], [alert(), alert()]), range(40)))
        ids = [data["id"] for data in receive(socket, 80)]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("cookie", ["", "ingestcloud_session=nonsense"])
def test_without_a_login_the_handshake_is_refused(server, cookie):
    with pytest.raises(InvalidStatus) as refusal:
        server.socket(cookie)
    assert refusal.value.response.status_code == 403


def test_without_a_tenant_the_handshake_is_refused(server, log_in):
    with pytest.raises(InvalidStatus):
        server.socket(log_in())


def test_an_inactive_user_is_refused(server, tenant, log_in):
    user = get_user_model().objects.create_user("gone")
    user.tenants.add(tenant)
    cookie = log_in(user=user)
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)
    with pytest.raises(InvalidStatus):
        server.socket(cookie)


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
def test_a_foreign_origin_is_refused(server, tenant, log_in, origin):
    with pytest.raises(InvalidStatus):
        server.socket(log_in(tenant), origin=origin)


@pytest.mark.parametrize("since", ["x", "-1", "1.5", "", "9" * 30, "%D9%A1"])
def test_a_since_that_is_not_an_id_is_refused(server, tenant, log_in, since):
    with pytest.raises(InvalidStatus):
        server.socket(log_in(tenant), query=f"?since={since}")


@pytest.mark.parametrize("path", ["/api/ws/other", "/", "", "//", "/api/ws/security%0A", "/%0A", "/%00", "/%E2%80%A8x"])
def test_an_unknown_socket_address_is_refused(server, path):
    from websockets.sync.client import connect

    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{server.port}{path}", origin=server.url, proxy=None)
    assert refused.value.response.status_code == 403


def test_missed_alerts_come_first_and_in_order(server, key, tenant, log_in):
    for _ in range(6):
        server.post(key, [alert() for _ in range(100)])
    ids = list(SecurityAlert.objects.order_by("id").values_list("id", flat=True))
    with server.socket(log_in(tenant), query=f"?since={ids[9]}") as socket:
        server.post(key, [alert("live")])
        received = receive(socket, 591)
    assert [data["id"] for data in received[:-1]] == ids[10:]
    assert received[-1]["title"] == "live"


def test_since_zero_sends_everything_and_no_since_only_new_alerts(server, key, tenant, log_in):
    cookie = log_in(tenant)
    server.post(key, [alert("old")])
    with server.socket(cookie, query="?since=0") as all_of_it, server.socket(cookie) as new:
        assert receive(all_of_it, 1)[0]["title"] == "old"
        ping(new)
        server.post(key, [alert("new")])
        assert receive(new, 1)[0]["title"] == "new"


def test_an_id_from_the_future_hides_nothing(server, key, tenant, log_in):
    with server.socket(log_in(tenant), query=f"?since={2**63}") as socket:
        server.post(key, [alert("new")])
        assert receive(socket, 1)[0]["title"] == "new"


def test_an_open_socket_goes_on_after_the_database_was_restored(server, key, tenant, log_in):
    server.post(key, [alert("before")])
    backup = Backup()
    with server.socket(log_in(tenant)) as socket:
        for number in range(5):
            server.post(key, [alert(f"lost {number}")])
        receive(socket, 5)
        time.sleep(0.5)  # a broadcast may still be on its way although its alert was read from the database
        backup.restore()
        ping(socket)
        for number in range(3):
            server.post(key, [alert(f"after {number}")])
        assert [data["title"] for data in receive(socket, 3)] == ["after 0", "after 1", "after 2"]


def test_a_repeated_batch_is_broadcast_once(server, key, tenant, log_in):
    with server.socket(log_in(tenant)) as socket:
        body = json.dumps([alert()]).encode()
        for _ in range(3):
            server.post(key, content=body)
        receive(socket, 1)
        ping(socket)


def test_an_alert_that_was_never_announced_comes_with_the_next_ping(server, key, tenant, device_key, log_in):
    with server.socket(log_in(tenant)) as socket:
        server.post(key, [alert()])
        (first,) = receive(socket, 1)
        lost = SecurityAlert.objects.get()
        lost.pk, lost.title = None, "lost on the way"
        lost.save()
        socket.send('{"type":"ping"}')
        (second,) = receive(socket, 1)
        assert (second["id"], second["title"]) == (first["id"] + 1, "lost on the way")
        assert json.loads(socket.recv(timeout=10)) == {"type": "pong"}


def test_an_alert_that_was_never_announced_comes_before_the_next_announced_one(server, key, tenant, log_in):
    with server.socket(log_in(tenant)) as socket:
        server.post(key, [alert()])
        receive(socket, 1)
        lost = SecurityAlert.objects.get()
        lost.pk, lost.title = None, "lost on the way"
        lost.save()
        server.post(key, [alert("announced")])
        assert [data["title"] for data in receive(socket, 2)] == ["lost on the way", "announced"]


def test_alerts_of_many_devices_at_the_same_time_reach_every_socket_in_order_and_without_gaps(
    server, make_key, tenant, log_in
):
    keys = [make_key(tenant)[1] for _ in range(4)]
    with (
        server.socket(log_in(tenant)) as member,
        server.socket(log_in(superuser=True)) as superuser,
        ThreadPoolExecutor(16) as pool,
    ):
        list(pool.map(lambda n: server.post(keys[n % 4], [log(), alert(), alert()]), range(100)))
        ids = list(SecurityAlert.objects.order_by("id").values_list("id", flat=True))
        assert len(ids) == 200
        for socket in (member, superuser):
            assert [data["id"] for data in receive(socket, 200)] == ids


def test_a_ping_after_logging_out_closes_the_socket(server, tenant, log_in):
    with server.socket(log_in(tenant)) as socket:
        Session.objects.all().delete()
        socket.send('{"type":"ping"}')
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
    assert closed.value.rcvd.code == 4401


def test_a_ping_after_losing_a_tenant_closes_the_socket(server, tenant, make_tenant, log_in):
    with server.socket(log_in(tenant, make_tenant())) as socket:
        ping(socket)
        tenant.members.clear()
        socket.send('{"type":"ping"}')
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
    assert closed.value.rcvd.code == 4403


@pytest.mark.parametrize("frame", ["", "x", "[]", "{}", '{"type":"alert"}', b"\x00\xff", "[" * 4000])
def test_meaningless_frames_are_ignored(server, tenant, log_in, frame):
    with server.socket(log_in(tenant)) as socket:
        socket.send(frame)
        ping(socket)


def test_a_user_with_an_open_live_page_stays_logged_in(server, tenant):
    """Only the socket extends the session, and no answer renews the cookie of the browser, which must outlast it."""
    user = get_user_model().objects.create_user("ada", password="a good password")
    user.tenants.add(tenant)
    with httpx.Client(base_url=server.url, timeout=30) as browser, time_machine.travel(time.time()) as clock:
        token = re.search(r'csrfmiddlewaretoken" value="(\w+)', browser.get("/login/").text)
        assert token
        form = {"username": "ada", "password": "a good password", "csrfmiddlewaretoken": token[1]}
        assert browser.post("/login/", data=form).headers["location"] == "/alerts/"
        name = settings.SESSION_COOKIE_NAME
        key = browser.cookies[name]
        store = Session.get_session_store_class()(key)
        store[USED_AT] -= NOTE_USE_EVERY_SECONDS
        store.save()
        soon = timezone.now() + timedelta(minutes=1)
        Session.objects.update(expire_date=soon)
        with server.socket(f"{name}={key}") as socket:
            ping(socket)
        assert Session.objects.get().expire_date > soon + timedelta(hours=11)
        clock.shift(timedelta(hours=13))  # the browser's clock
        assert browser.get("/alerts/").status_code == 200


@servers_only
def test_an_alert_accepted_by_one_process_reaches_a_page_of_another(server, start_server, key, tenant, log_in):
    other = start_server()
    with other.socket(log_in(tenant)) as socket:
        server.post(key, [alert("from the other side")])
        assert receive(socket, 1)[0]["title"] == "from the other side"
    other.stop()


def test_a_reader_too_slow_for_its_alerts_gets_all_of_them_later(server, key, tenant, log_in):
    """More hints come than a socket's inbox holds, and more bytes than the buffers on the way."""
    device = httpx.Client(base_url=server.url, headers={"X-Device-Key": key}, timeout=30)
    with device, server.socket(log_in(tenant)) as slow:
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        server.post(key, [alert("it has caught up")])
        receive(slow, 1)
        ping(slow)
        for number in range(300):
            batch = [alert(f"{number}/{n}", description="x" * 5000) for n in range(20)]
            assert device.post("/v1/ingest", json=batch).status_code == 204
        ids = [data["id"] for data in receive(slow, 6000)]
        ping(slow)
    assert ids == list(SecurityAlert.objects.order_by("id").values_list("id", flat=True))[1:]


@pytest.fixture
def open_socket(log_in):
    """Opens a socket whose sending waits while `may_send` is cleared."""

    async def open_socket(*tenants, may_send: asyncio.Event) -> WebsocketCommunicator:
        cookie = await database_sync_to_async(log_in)(*tenants)
        consumer = with_login(SecurityAlertConsumer.as_asgi())

        async def application(scope, receive, send):
            async def wait_and_send(message):
                await may_send.wait()
                await send(message)

            await consumer(scope, receive, wait_and_send)

        socket = WebsocketCommunicator(application, "/api/ws/security", headers=[(b"cookie", cookie.encode())])
        may_send.set()
        assert (await socket.connect())[0]
        return socket

    return open_socket


async def test_a_socket_that_cannot_send_for_a_while_sends_all_alerts_later(device_key, open_socket):
    """More hints come while it waits than its inbox holds."""
    may_send = asyncio.Event()
    socket = await open_socket(device_key.device.tenant, may_send=may_send)
    await store_and_broadcast(device_key)
    await socket.receive_from(10)
    await socket.send_to('{"type":"ping"}')  # from then on it learns of alerts only from hints
    assert json.loads(await socket.receive_from(10)) == {"type": "pong"}
    may_send.clear()
    for _ in range(INBOX_LIMIT + 50):
        await store_and_broadcast(device_key)
    may_send.set()
    frames = [json.loads(await socket.receive_from(10)) for _ in range(INBOX_LIMIT + 50)]
    await socket.disconnect()
    newest = SecurityAlert.objects.order_by("-id").values_list("id", flat=True)[: INBOX_LIMIT + 50]
    assert [frame["data"]["id"] for frame in reversed(frames)] == await database_sync_to_async(list)(newest)


def log_out(tenant: Tenant) -> None:
    Session.objects.all().delete()


def let_the_session_expire(tenant: Tenant) -> None:
    Session.objects.update(expire_date=timezone.now())


def disable(tenant: Tenant) -> None:
    tenant.members.update(is_active=False)


def move(tenant: Tenant) -> None:
    tenant.members.clear()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("happens", "code"), [(log_out, 4401), (let_the_session_expire, 4401), (disable, 4401), (move, 4403)]
)
async def test_a_user_who_may_no_longer_listen_is_cut_off_without_a_ping(
    tenant, open_socket, monkeypatch, happens, code
):
    monkeypatch.setattr(live_socket, "WATCH_SECONDS", 0.2)
    socket = await open_socket(tenant, may_send=asyncio.Event())
    assert await socket.receive_nothing(1)
    await database_sync_to_async(happens)(tenant)
    assert await socket.receive_output(10) == {"type": "websocket.close", "code": code}


async def test_a_user_who_is_disabled_during_a_check_is_logged_out(tenant, open_socket, monkeypatch):
    def disable_first(user):
        disable(tenant)
        return tenants_of(user)

    tenants_of = live_socket.tenants_of
    monkeypatch.setattr(live_socket, "WATCH_SECONDS", 0.2)
    socket = await open_socket(tenant, may_send=asyncio.Event())
    monkeypatch.setattr(live_socket, "tenants_of", disable_first)
    assert (await socket.receive_output(10))["code"] == 4401


async def test_a_socket_is_checked_again_after_a_check_that_failed(tenant, open_socket, monkeypatch):
    """As happens while the database is down."""
    monkeypatch.setattr(live_socket, "WATCH_SECONDS", 0.2)
    socket = await open_socket(tenant, may_send=asyncio.Event())
    with monkeypatch.context() as failing:
        failing.setattr(live_socket, "tenants_of", None)
        assert await socket.receive_nothing(1)
    await database_sync_to_async(move)(tenant)
    assert (await socket.receive_output(10))["code"] == 4403


async def test_a_socket_that_fails_is_closed_so_that_its_page_reconnects(tenant, open_socket, monkeypatch, caplog):
    socket = await open_socket(tenant, may_send=asyncio.Event())
    monkeypatch.setattr(consumers, "alerts_after", None)
    await socket.send_to('{"type":"ping"}')
    assert await socket.receive_output(10) == {"type": "websocket.close", "code": 1011}
    assert "Closing a socket; its page will reconnect" in caplog.text


async def test_a_socket_that_is_closed_for_two_reasons_is_closed_once_and_for_the_first(tenant, open_socket):
    socket = await open_socket(tenant, may_send=asyncio.Event())
    [consumer] = consumers.hub()._listeners
    await consumer.end(4408)
    await consumer.end(4401)
    assert await socket.receive_output(10) == {"type": "websocket.close", "code": 4408}
    assert await socket.receive_nothing()


def test_two_checks_of_a_socket_fit_into_a_minute():
    assert 2 * live_socket.WATCH_SECONDS < 60


@pytest.mark.slow
async def test_a_client_that_does_not_read_is_dropped(device_key, open_socket, monkeypatch):
    monkeypatch.setattr(live_socket, "WATCH_SECONDS", 0.2)
    may_send = asyncio.Event()
    socket = await open_socket(device_key.device.tenant, may_send=may_send)
    await store_and_broadcast(device_key)
    await socket.receive_from(10)
    may_send.clear()
    await store_and_broadcast(device_key)
    assert await socket.receive_nothing(2)
    may_send.set()
    assert (await socket.receive_output(10))["code"] == 4408


def test_a_frame_that_is_much_too_long_closes_the_socket(server, tenant, log_in):
    with server.socket(log_in(tenant)) as socket:
        socket.send("x" * 5000)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
    assert closed.value.rcvd.code == 1009


async def store_and_broadcast(device_key: DeviceKey) -> None:
    body = json.dumps([alert()]).encode()
    batch = check_batch(body, device_key, None, timezone.now())
    await broadcast((await database_sync_to_async(store_batches)([batch])).alerts)
