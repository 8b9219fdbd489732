"""A device whose answer was lost can register again; no other device can, and what it was told stays true."""

import json
import logging
import re
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import quote

import httpx
import psycopg
import pytest
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from psycopg.conninfo import conninfo_to_dict

from common.transactions import TimeLimit
from devices.models import Device, DeviceKey, ProvisioningKey
from devices.registration import MAX_REPEATS, REPEAT_WITHIN, TIME_LIMIT_SECONDS
from tests.support.assertions import assert_problem
from tests.support.events import log
from tests.support.live import ROOT, Server, test_database_url
from tests.support.proxy import StallingAt
from tests.support.real_clients import need
from tests.support.servers import embedded_only, servers_only

pytestmark = pytest.mark.django_db(transaction=True)

PRESS = {"name": "press-01", "location": "Hall 3", "type": "edge-gateway"}
ENDS_WITHIN = 8.0  # seconds, for a registration that the database holds up


@pytest.fixture
def secret() -> str:
    return secrets.token_urlsafe(16)


def is_good(server: Server, answer: httpx.Response) -> bool:
    """Whether the device key in a registration's answer is accepted. Asking uses the key."""
    status = server.post(answer.json()["device_key"], [log()]).status_code
    assert status in (204, 401)
    return status == 204


def assert_come_again(answer: httpx.Response) -> None:
    assert_problem(answer, 503, "storage_unavailable")
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize("usage_limit", [1, 5])
def test_a_device_whose_answer_was_lost_can_register_again(server, issue, secret, usage_limit):
    key, plaintext = issue(usage_limit=usage_limit)
    answers = [server.register(plaintext, PRESS, secret) for _ in range(1 + MAX_REPEATS)]
    assert [answer.status_code for answer in answers] == [201] * (1 + MAX_REPEATS)
    assert {answer.json()["device_id"] for answer in answers} == {Device.objects.get().pk}
    key.refresh_from_db()
    assert key.use_count == 1
    assert [is_good(server, answer) for answer in answers] == [False] * MAX_REPEATS + [True]
    assert DeviceKey.objects.count() == 1 + MAX_REPEATS


def test_after_three_repeats_it_is_told_what_to_do(server, issue, secret):
    _, plaintext = issue(usage_limit=5)
    answers = [server.register(plaintext, PRESS, secret) for _ in range(1 + MAX_REPEATS)]
    for _ in range(3):
        refused = server.register(plaintext, PRESS, secret)
        assert_problem(refused, 409, "device_name_taken")
        assert "Have a key issued" in refused.json()["detail"]
    assert is_good(server, answers[-1])


@pytest.mark.parametrize("usage_limit", [1, 5])
@pytest.mark.parametrize("with_secret", [True, False])
def test_no_one_else_can_take_over_a_device(server, issue, secret, usage_limit, with_secret):
    """All devices of a delivery share the provisioning key, so the key alone proves nothing."""
    key, plaintext = issue(usage_limit=usage_limit)
    first = server.register(plaintext, PRESS, secret if with_secret else None)
    for other in (None, secrets.token_urlsafe(16), secret.swapcase(), secret + "x"):
        refused = server.register(plaintext, PRESS, other)
        if usage_limit == 1:  # another device is not even told that this one exists
            assert_problem(refused, 401, "invalid_provisioning_key")
            assert refused.content == server.register(plaintext, {"name": "nobody"}, other).content
        else:
            assert_problem(refused, 409, "device_name_taken")
    key.refresh_from_db()
    assert (key.use_count, DeviceKey.objects.count()) == (1, 1)
    assert is_good(server, first)


def test_another_provisioning_key_does_not_repeat_it(server, issue, secret):
    first = server.register(issue()[1], PRESS, secret)
    assert_problem(server.register(issue()[1], PRESS, secret), 409, "device_name_taken")
    assert is_good(server, first)


def test_one_secret_under_two_names_is_two_devices(server, issue, secret):
    _, plaintext = issue(usage_limit=2)
    one, two = (server.register(plaintext, {"name": name}, secret) for name in ("press-01", "press-02"))
    assert one.json()["device_id"] != two.json()["device_id"]
    assert is_good(server, one)
    assert is_good(server, two)


def test_a_device_that_has_sent_cannot_register_again(server, issue, secret):
    _, plaintext = issue()
    first = server.register(plaintext, PRESS, secret)
    assert is_good(server, first)
    wait_until(lambda: Device.objects.exclude(last_seen_at=None).exists())
    assert_problem(server.register(plaintext, PRESS, secret), 409, "device_name_taken")
    assert is_good(server, first)


def test_a_device_cannot_register_again_a_day_later(server, issue, secret):
    _, plaintext = issue()
    first = server.register(plaintext, PRESS, secret)
    Device.objects.update(created_at=timezone.now() - REPEAT_WITHIN)
    assert_problem(server.register(plaintext, PRESS, secret), 409, "device_name_taken")
    assert is_good(server, first)


@pytest.mark.parametrize("end", [{"revoked_at": timezone.now()}, {"expires_at": timezone.now()}])
def test_a_revoked_or_expired_provisioning_key_repeats_nothing(server, issue, secret, end):
    _, plaintext = issue()
    first = server.register(plaintext, PRESS, secret)
    ProvisioningKey.objects.update(**end)
    assert_problem(server.register(plaintext, PRESS, secret), 401, "invalid_provisioning_key")
    assert is_good(server, first)


def test_a_repeat_does_not_undo_what_staff_did_with_the_keys(server, issue, secret):
    for number, act in enumerate(
        [DeviceKey.revoke, lambda key: key.rotate(timedelta(0)), lambda key: DeviceKey.objects.issue(key.device)]
    ):
        _, plaintext = issue()
        body = PRESS | {"name": f"press-{number}"}
        assert server.register(plaintext, body, secret).status_code == 201
        act(DeviceKey.objects.get(device__name=body["name"]))
        before = list(DeviceKey.objects.values_list("pk", "revoked_at", "expires_at"))
        assert_problem(server.register(plaintext, body, secret), 409, "device_name_taken")
        assert list(DeviceKey.objects.values_list("pk", "revoked_at", "expires_at")) == before


@pytest.mark.parametrize("header", ["", "x" * 21, '"' + "x" * 21 + '"', "x" * 256, "x" * 20 + " x", "ö" * 22])
def test_an_invalid_secret_is_400(server, issue, header):
    key, plaintext = issue()
    assert_problem(server.register(plaintext, PRESS, header.encode()), 400, "invalid_idempotency_key")
    key.refresh_from_db()
    assert (key.use_count, Device.objects.count()) == (0, 0)


def test_quotes_are_not_part_of_the_secret(server, issue, secret):
    _, plaintext = issue()
    answers = [server.register(plaintext, PRESS, header) for header in (secret, f'"{secret}"')]
    assert [answer.status_code for answer in answers] == [201, 201]


def test_the_curl_commands_in_the_docs_can_be_repeated_unchanged(server, issue, tmp_path):
    need("curl", "openssl")
    _, plaintext = issue()
    page = (ROOT / "docs" / "devices.md").read_text()
    [lines] = [text for text in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "X-Provisioning-Key" in text]
    command = ["sh", "-c", f"URL={server.url}\n{lines.replace('prv_…', plaintext)}"]
    for _ in range(2):
        answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        assert "201 Created" in answer
    device = Device.objects.get()
    assert (device.name, device.registration_repeats) == ("press-01", 1)


def test_the_secret_is_not_in_answers_log_or_database(server, issue, secret):
    _, plaintext = issue()
    for _ in range(2 + MAX_REPEATS):
        assert secret not in server.register(plaintext, PRESS, secret).text
    assert secret not in server.log
    assert secret not in str(Device.objects.values().get())


def test_every_registration_is_logged_and_staff_see_the_repeats(client, admin_client, issue, secret, caplog):
    caplog.set_level(logging.INFO, "devices.registration")
    key, plaintext = issue()
    page = reverse("admin:devices_device_change", args=[register_in_process(client, plaintext, secret)])
    assert "repeated" not in admin_client.get(page).text
    device = register_in_process(client, plaintext, secret)
    assert "repeated 1 time, last at" in admin_client.get(page).text
    register_in_process(client, plaintext, secret)
    assert "repeated 2 times, last at" in admin_client.get(page).text
    slug = key.tenant.slug
    assert [record.getMessage() for record in caplog.records if record.name == "devices.registration"] == [
        f"Device press-01 of {slug} registered with {key} from 192.0.2.7",
        f"Device press-01 of {slug} repeated its registration (1 of 3) with {key} from 192.0.2.7",
        f"Device press-01 of {slug} repeated its registration (2 of 3) with {key} from 192.0.2.7",
    ]
    assert device == Device.objects.get().pk


def register_in_process(client: Client, key: str, secret: str) -> int:
    headers = {"X-Provisioning-Key": key, "Idempotency-Key": secret}
    where = {"headers": headers, "REMOTE_ADDR": "192.0.2.7"}
    return client.post(reverse("register"), PRESS, content_type="application/json", **where).json()["device_id"]


# Concurrent registrations


def test_the_same_request_twice_at_the_same_time_is_one_device_with_a_working_key(server, issue, secret):
    for number in range(5):
        key, plaintext = issue()
        body = PRESS | {"name": f"press-{number}"}
        together = threading.Barrier(2)

        def register(_, plaintext=plaintext, body=body, together=together):
            together.wait()
            return server.register(plaintext, body, secret)

        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(register, range(2)))
        assert [answer.status_code for answer in answers] == [201, 201]
        assert len({answer.json()["device_id"] for answer in answers}) == 1
        # If the second arrived after the first key was made, that key is revoked; otherwise it is good too.
        latest = max(answers, key=lambda answer: DeviceKey.objects.get(prefix=answer.json()["device_key"][:12]).pk)
        assert is_good(server, latest)
        key.refresh_from_db()
        assert key.use_count == 1
    assert Device.objects.count() == 5


@pytest.mark.parametrize("with_secret", [True, False])
def test_one_device_that_registers_many_times_at_the_same_time_is_one_device(server, issue, secret, with_secret):
    key, plaintext = issue(usage_limit=50)
    given = secret if with_secret else None
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: server.register(plaintext, PRESS, given), range(10)))
    good = 1 + MAX_REPEATS if with_secret else 1
    assert sorted(answer.status_code for answer in answers) == [201] * good + [409] * (10 - good)
    key.refresh_from_db()
    assert (key.use_count, Device.objects.count(), DeviceKey.objects.count()) == (1, 1, good)
    assert DeviceKey.objects.usable().exists()


# Registrations that stall


class Line(StallingAt):
    """A proxy in front of the tests' PostgreSQL, which stalls at the marker. `url` leads through it."""

    def __init__(self, marker: bytes, skip: int = 0) -> None:
        self._given = conninfo_to_dict(test_database_url())
        super().__init__(self._database, marker, skip)
        login = ":".join(quote(str(self._given[name])) for name in ("user", "password") if name in self._given)
        # No encryption: it would hide the marker.
        where = f"127.0.0.1:{self.port}/{self._given['dbname']}?sslmode=disable&gssencmode=disable"
        self.url = f"postgresql://{login}@{where}"

    def _database(self) -> socket.socket:
        host, port = str(self._given["host"]), self._given.get("port", 5432)
        if not host.startswith("/"):
            return socket.create_connection((host, int(port)))
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"{host}/.s.PGSQL.{port}")
        return connection


@pytest.fixture
def line(request) -> Iterator[Line]:
    """A Line with the test's parameters; without any, it stalls at the first lock that a registration takes."""
    line = Line(*getattr(request, "param", [b" UPDATE"]))
    yield line
    line.go_on.set()


def wait_until(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@servers_only
def test_a_stalled_registration_does_not_undo_its_repeat(start_server, server, issue, secret, line):
    key, plaintext = issue()
    slow = start_server(DATABASE_URL=line.url)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(slow.register, plaintext, PRESS, secret)
        assert line.stalled.wait(10)
        repeat = server.register(plaintext, PRESS, secret)
        assert repeat.status_code == 201
        time.sleep(TIME_LIMIT_SECONDS + 1)
        line.go_on.set()
        assert_come_again(first.result())
    assert DeviceKey.objects.count() == 1
    assert is_good(server, repeat)
    key.refresh_from_db()
    assert key.use_count == 1
    slow.stop()


@servers_only
def test_a_registration_overtaken_by_its_repeat_revokes_nothing(start_server, server, issue, secret, line):
    """It stalls for less than its time limit, so both answers stay valid."""
    _, plaintext = issue()
    slow = start_server(DATABASE_URL=line.url)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(slow.register, plaintext, PRESS, secret)
        assert line.stalled.wait(10)
        repeat = server.register(plaintext, PRESS, secret)
        line.go_on.set()
        assert (first.result().status_code, repeat.status_code) == (201, 201)
    assert first.result().json()["device_id"] == repeat.json()["device_id"]
    assert is_good(server, repeat)
    assert is_good(server, first.result())
    slow.stop()


@servers_only
@pytest.mark.parametrize("line", [(b"COMMIT", 1)], indirect=True)  # the first COMMIT ends the look-up of the key
def test_a_registration_that_stalls_before_its_commit_is_never_committed(start_server, server, issue, secret, line):
    """The database ends the session, which releases the locks that others wait for."""
    _, plaintext = issue()
    slow = start_server(DATABASE_URL=line.url)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(slow.register, plaintext, PRESS, secret)
        assert line.stalled.wait(10)
        began = time.monotonic()
        while (answer := server.register(plaintext, PRESS, secret)).status_code != 201:
            assert_come_again(answer)
            assert time.monotonic() - began < 2 * ENDS_WITHIN
        line.go_on.set()
        assert_come_again(first.result())
    assert DeviceKey.objects.count() == 1
    assert is_good(server, answer)
    slow.stop()


@contextmanager
def locked(table: str) -> Iterator[None]:
    with psycopg.connect(test_database_url()) as other:
        other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


@servers_only
@pytest.mark.parametrize("table", ["provisioning_keys", "devices", "device_keys"])
def test_a_long_lock_is_503_within_the_time_limit(server, issue, secret, table):
    key, plaintext = issue()
    with locked(table):
        began = time.monotonic()
        assert_come_again(server.register(plaintext, PRESS, secret))
        assert time.monotonic() - began < ENDS_WITHIN
    key.refresh_from_db()
    assert (key.use_count, Device.objects.count(), DeviceKey.objects.count()) == (0, 0, 0)
    assert is_good(server, server.register(plaintext, PRESS, secret))


@embedded_only
def test_a_writer_that_does_not_finish_is_503_within_the_time_limit(server, issue, secret):
    import sqlite3

    _, plaintext = issue()
    other = sqlite3.connect(test_database_url().removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert_come_again(server.register(plaintext, PRESS, secret))
    assert time.monotonic() - began < ENDS_WITHIN
    other.rollback()
    other.close()
    assert is_good(server, server.register(plaintext, PRESS, secret))


def test_what_is_not_committed_in_time_is_rolled_back(tenant):
    limit = TimeLimit(TIME_LIMIT_SECONDS)

    def write_for_too_long() -> None:
        with limit.transaction():
            Device.objects.create(tenant=tenant, name="press-01")
            limit._end = time.monotonic()

    with pytest.raises(OperationalError, match="has run out"):
        write_for_too_long()
    assert not Device.objects.exists()


@servers_only
def test_a_name_that_is_free_is_not_called_taken(server, issue):
    """Even if an id is taken, because the sequence is behind its table."""
    _, plaintext = issue(usage_limit=5)
    for name in ("one", "two"):
        assert server.register(plaintext, {"name": name}).status_code == 201
    with psycopg.connect(test_database_url(), autocommit=True) as connection:
        connection.execute(
            "SELECT setval(pg_get_serial_sequence('devices', 'id'), (SELECT min(id) FROM devices), false)"
        )
    assert_come_again(server.register(plaintext, {"name": "three"}))
    assert not Device.objects.filter(name="three").exists()


def test_a_request_counts_from_the_arrival_of_its_head(server, issue, secret):
    """Its body arrives after its repeat was answered: it must not revoke the key of the repeat."""
    _, plaintext = issue()
    body = json.dumps(PRESS).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(
            f"POST /api/v1/devices/register HTTP/1.1\r\nHost: localhost\r\nX-Provisioning-Key: {plaintext}\r\n"
            f"Idempotency-Key: {secret}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body[:5]
        )
        time.sleep(0.5)
        repeat = server.register(plaintext, PRESS, secret)
        assert repeat.status_code == 201
        connection.sendall(body[5:])
        assert connection.recv(10_000).startswith(b"HTTP/1.1 201 ")
    assert is_good(server, repeat)
