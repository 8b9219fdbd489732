"""`/api/ws/groups`: what changed after a revision, then every change, for the user's tenants alone."""

import json
from contextlib import ExitStack
from uuid import uuid4

import httpx
import pytest
from django.conf import settings
from django.db import connection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from alerts.models import AlertGroup
from alerts.order import next_revisions
from tenants.models import Membership, Role
from tests.support.alert_rows import Backup, alert_row
from tests.support.events import alert
from tests.support.live import HTTP, Server
from tests.support.servers import servers_only
from tests.support.side import Side
from tests.support.sockets import ping

pytestmark = pytest.mark.django_db(transaction=True)

ADDRESS = "/api/ws/groups"


def frame(socket) -> dict:
    return json.loads(socket.recv(timeout=10))


def groups(socket) -> list[dict]:
    content = frame(socket)
    assert content["type"] == "groups", content
    assert content["revision"] >= max(group["revision"] for group in content["groups"])
    return content["groups"]


def caught_up(socket) -> dict:
    content = frame(socket)
    assert content.pop("type") == "caught_up", content
    return content


def send(server: Server, key: str, events: list[dict]) -> None:
    """Each batch has a name of its own: with the same bytes it would be a repeat."""
    assert server.post(key, events, headers={"Idempotency-Key": str(uuid4())}).status_code == 204


def newest() -> int:
    return AlertGroup.objects.newest_revision()


@pytest.fixture
def open_socket(server, log_in):
    """Opens a socket of a member that has caught up."""
    with ExitStack() as opened:

        def open_socket(*tenants, **who):
            socket = opened.enter_context(server.socket(log_in(*tenants, **who), path=ADDRESS))
            caught_up(socket)
            return socket

        yield open_socket


def test_a_repeat_comes_as_the_same_group(server, key, tenant, open_socket):
    socket = open_socket(tenant)
    send(server, key, [alert("Port scan", source_ip="10.0.0.9", severity="low")])
    [first] = groups(socket)
    send(server, key, [alert("Port scan", source_ip="10.0.0.9", severity="critical")] * 3)
    [second] = groups(socket)
    assert (first["id"], first["count"], first["severity"]) == (second["id"], 1, "low")
    assert (second["count"], second["severity"], second["title"]) == (4, "critical", "Port scan")


def test_what_one_analyst_does_others_see(server, key, tenant, open_socket, log_in):
    viewer = open_socket(tenant)
    Membership.objects.update(role=Role.VIEWER)
    send(server, key, [alert("Port scan")])
    [group] = groups(viewer)
    operation = {"operation": str(uuid4()), "groups": [{"id": group["id"], "version": 0}]}
    token = "a" * 32
    headers = {"Cookie": f"{log_in(tenant)}; {settings.CSRF_COOKIE_NAME}={token}", "X-CSRFToken": token}
    body = operation | {"status": "closed", "disposition": "benign"}
    answer = httpx.post(f"{server.url}/api/v1/triage", json=body, headers=headers, **HTTP)
    assert answer.status_code == 200, answer.text
    [closed] = groups(viewer)
    assert (closed["id"], closed["status"], closed["disposition"]) == (group["id"], "closed", "benign")


def test_groups_reach_no_other_tenant(server, make_tenant, make_key, open_socket):
    tenants = [make_tenant(), make_tenant()]
    keys = [make_key(tenant)[1] for tenant in tenants]
    own, other, both = open_socket(tenants[0]), open_socket(tenants[1]), open_socket(*tenants)
    everything = open_socket(superuser=True)
    send(server, keys[0], [alert("of the first")])
    for socket in (own, both, everything):
        assert [group["title"] for group in groups(socket)] == ["of the first"]
    ping(other)  # nothing came before the pong


def test_what_was_missed_of_another_tenant_is_not_counted(server, make_tenant, key, log_in):
    send(server, key, [alert()])
    with server.socket(log_in(make_tenant()), "?since=0&alert=0", path=ADDRESS) as socket:
        assert caught_up(socket) == {"revision": 0, "groups": 0, "alerts": 0, "worst": None}


def test_a_client_gets_what_it_missed_once_with_its_newest_state(server, key, tenant, log_in):
    send(server, key, [alert("seen")])
    seen = AlertGroup.objects.get()
    for _ in range(5):
        send(server, key, [alert("seen"), alert("missed", severity="critical")])
    query = f"?since={seen.revision}&alert={seen.last_alert_id}"
    with server.socket(log_in(tenant), query, path=ADDRESS) as socket:
        assert {group["title"]: group["count"] for group in groups(socket)} == {"seen": 6, "missed": 5}
        assert caught_up(socket) == {"revision": newest(), "groups": 2, "alerts": 10, "worst": "critical"}
    with server.socket(log_in(tenant), f"?since={newest()}", path=ADDRESS) as socket:
        assert caught_up(socket) == {"revision": newest(), "groups": 0, "alerts": None, "worst": None}


def test_a_ping_finds_a_change_that_was_not_broadcast(tenant, device_key, open_socket):
    socket = open_socket(tenant)
    device = device_key.device
    row = alert_row(
        tenant=tenant, device=device, title="silent", severity="low", timestamp=device.created_at,
        received_at=device.created_at,
    )  # fmt: skip
    socket.send('{"type":"ping"}')
    assert [group["id"] for group in groups(socket)] == [row.group_id]
    assert frame(socket) == {"type": "pong"}


def test_hidden_groups_are_not_sent(server, key, tenant, log_in):
    send(server, key, [alert("noise"), alert("signal")])
    AlertGroup.objects.filter(title="noise").update(count=0, suppressed_count=1)
    with server.socket(log_in(tenant), "?since=0", path=ADDRESS) as socket:
        assert [group["title"] for group in groups(socket)] == ["signal"]
        assert caught_up(socket)["groups"] == 1


def many_groups(tenant, count: int) -> None:
    side = Side("many")
    first = side.alert.group
    AlertGroup.objects.bulk_create(
        AlertGroup(
            tenant=tenant, fingerprint=number.to_bytes(16), title=f"title {number}", severity="low", count=1,
            first_seen_at=first.first_seen_at, last_seen_at=first.last_seen_at, last_alert_id=1, revision=revision,
        )
        for number, revision in enumerate(next_revisions(count))
    )  # fmt: skip


@pytest.mark.parametrize(("count", "resets"), [(2_000, False), (2_001, True)])
def test_a_client_that_missed_too_much_loads_again(server, tenant, log_in, count, resets):
    many_groups(tenant, count)
    with server.socket(log_in(tenant), "?since=0", path=ADDRESS) as socket:
        if resets:
            assert frame(socket) == {"type": "reset", "revision": newest()}
        else:
            pages = [len(groups(socket)) for _ in range(4)]
            assert (sum(pages), caught_up(socket)["groups"]) == (count, count)
        ping(socket)


def test_a_revision_from_the_future_makes_the_client_load_again(server, key, tenant, log_in):
    """As after the database was restored from a backup."""
    send(server, key, [alert("before")])
    with server.socket(log_in(tenant), "?since=999999", path=ADDRESS) as socket:
        assert frame(socket) == {"type": "reset", "revision": newest()}
        send(server, key, [alert("after")])
        assert [group["title"] for group in groups(socket)] == ["after"]


@pytest.mark.parametrize("found_by", ["a ping", "an alert"])
def test_an_open_socket_starts_anew_after_the_database_was_restored(server, key, tenant, open_socket, found_by):
    send(server, key, [alert("before")])
    backup = Backup()
    socket = open_socket(tenant)
    for number in range(3):
        send(server, key, [alert(f"lost {number}")])
        groups(socket)
    backup.restore()
    if found_by == "an alert":
        send(server, key, [alert("after")])
    else:
        socket.send('{"type":"ping"}')
    assert frame(socket) == {"type": "reset", "revision": newest()}
    ping(socket) if found_by == "an alert" else frame(socket)
    send(server, key, [alert("later")])
    assert [group["title"] for group in groups(socket)] == ["later"]


@pytest.mark.parametrize("query", ["?since=x", "?since=-1", "?since=", "?since=1&alert=x", "?since=" + "9" * 20])
def test_a_since_that_is_no_number_is_refused(server, tenant, log_in, query):
    with pytest.raises(InvalidStatus) as refused, server.socket(log_in(tenant), query, path=ADDRESS):
        pass
    assert refused.value.response.status_code == 403


def test_only_members_listen(server, log_in, tenant):
    for cookie in ("", log_in()):
        with pytest.raises(InvalidStatus) as refused, server.socket(cookie, path=ADDRESS):
            pass
        assert refused.value.response.status_code == 403


def test_a_member_who_is_removed_is_cut_off(tenant, open_socket):
    socket = open_socket(tenant)
    Membership.objects.filter(tenant=tenant).delete()
    socket.send('{"type":"ping"}')
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=10)
    assert closed.value.rcvd.code == 4403


def test_nothing_is_missed_across_a_killed_server(start_server, transactional_db, key, tenant, log_in):
    server = start_server()
    cookie = log_in(tenant)
    with server.socket(cookie, path=ADDRESS) as socket:
        caught_up(socket)
        send(server, key, [alert("before")])
        [group] = groups(socket)
        server.process.kill()
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=10)
    server = start_server()
    send(server, key, [alert("meanwhile")])
    with server.socket(cookie, f"?since={group['revision']}", path=ADDRESS) as socket:
        assert [group["title"] for group in groups(socket)] == ["meanwhile"]


@servers_only
def test_changes_are_found_after_the_sequence_of_revisions_was_set_back(server, key, tenant, open_socket):
    send(server, key, [alert("before")])
    socket = open_socket(tenant)
    with connection.cursor() as cursor:
        cursor.execute("SELECT setval('alert_groups_revision_seq', 1, false)")
    send(server, key, [alert("after")])
    assert [group["title"] for group in groups(socket)] == ["after"]


def test_a_flood_ends_with_the_newest_state_of_each_group(server, key, tenant, open_socket):
    socket = open_socket(tenant)
    for _ in range(40):
        send(server, key, [alert(f"title {number}") for number in range(5)] * 20)
    socket.send('{"type":"ping"}')
    counts, frames = {}, 0
    while (content := frame(socket))["type"] == "groups":
        frames += 1
        counts |= {group["title"]: group["count"] for group in content["groups"]}
    assert counts == {f"title {number}": 800 for number in range(5)}
    assert frames <= 42
