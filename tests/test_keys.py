"""Which keys may send."""

import hashlib
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

from devices.authentication import KnownKeys
from devices.models import DeviceKey
from ingest.handler import StreamedRequest
from ingest.models import IngestBatch, RefusedKeyCount
from ingest.queries import wrong_keys
from ingest.refused_keys import RefusedKeys, add_to_hour, refused_keys
from ingest.views import IngestView
from tests.support.assertions import assert_problem
from tests.support.events import event, log

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_key_is_stored_as_a_hash_with_a_visible_prefix(device_key):
    assert device_key.plaintext.startswith("dvc_")
    assert len(device_key.plaintext) == 47
    device_key.refresh_from_db()
    assert device_key.digest == hashlib.sha256(device_key.plaintext.encode()).hexdigest()
    assert device_key.plaintext.startswith(device_key.prefix)
    assert len(device_key.prefix) == 12


def test_every_refused_key_gets_the_same_answer(server, make_key):
    revoked, revoked_plaintext = make_key()
    revoked.revoke()
    _, expired = make_key(expires_at=timezone.now() - timedelta(seconds=1))
    _, good = make_key()
    wrong = [revoked_plaintext, expired, good[:-1], good + "x", "dvc_", "dvc_" + "x" * 43, "", "x", "dvc_\xe9", None]

    answers = set()
    for plaintext in wrong:
        headers = {} if plaintext is None else {b"X-Device-Key": plaintext.encode("latin1")}
        response = server.post(None, [log()], headers=headers)
        assert_problem(response, 401, "invalid_device_key")
        assert response.headers["WWW-Authenticate"].startswith("DeviceKey")
        answers.add(response.content)
    assert len(answers) == 1
    assert not IngestBatch.objects.exists()


async def test_wrong_keys_count_for_all_addresses_of_a_network():
    """A client may choose from 2**64 of IPv6."""
    for number in range(60):
        headers = [(b"x-device-key", b"dvc_%043d" % number)]
        scope = {"method": "POST", "path": "/v1/ingest", "headers": headers, "client": (f"2001:db8::{number}", 1)}
        answer = await IngestView().answer(StreamedRequest(scope, receive_nothing))
        assert answer.status_code == 401
    assert wrong_keys.is_empty("2001:db8::")
    assert not wrong_keys.is_empty("2001:db8:0:1::")
    wrong_keys.clear()
    await refused_keys.write()


async def receive_nothing() -> dict:
    raise AssertionError("the body was read")


def test_the_key_is_checked_before_anything_else(server):
    for body, headers in ((b"{", {}), (b"[]", {"Content-Encoding": "br"}), (b" " * 6_000_000, {})):
        assert_problem(server.post("dvc_no", content=body, headers=headers), 401, "invalid_device_key")


def test_a_key_revoked_by_another_process_is_refused_on_the_very_next_post(server, key, device_key):
    assert server.post(key, [log()]).status_code == 204
    device_key.revoke()
    assert_problem(server.post(key, [log()]), 401, "invalid_device_key")
    assert_problem(server.post(key, content=b"{"), 401, "invalid_device_key")
    assert IngestBatch.objects.count() == 1


def test_a_module_switched_off_by_another_process_is_noticed_on_the_very_next_post(server, key, tenant):
    body = event("backup_event", job_id="j", status="done")
    assert server.post(key, [body, log()]).status_code == 204
    tenant.backup_enabled = False
    tenant.save()
    assert_problem(server.post(key, [body, log()]), 403, "module_disabled")
    assert IngestBatch.objects.count() == 1


def test_a_rotated_key_is_valid_until_the_overlap_ends(server, key, device_key):
    _, successor = device_key.rotate(timedelta(hours=1))
    assert server.post(key, [log()]).status_code == 204
    assert server.post(successor, [log()]).status_code == 204
    DeviceKey.objects.filter(pk=device_key.pk).update(expires_at=timezone.now())
    assert_problem(server.post(key, [log()]), 401, "invalid_device_key")
    assert server.post(successor, [log()]).status_code == 204


def test_rotation_never_extends_a_keys_life(make_key):
    soon = timezone.now() + timedelta(minutes=1)
    key, _ = make_key(expires_at=soon)
    key.rotate(timedelta(days=1))
    key.refresh_from_db()
    assert key.expires_at == soon


def test_known_keys_are_forgotten_before_they_fill_the_memory(make_key, monkeypatch):
    monkeypatch.setattr("devices.authentication.MAX_KNOWN_KEYS", 2)
    keys, known = [make_key()[0] for _ in range(3)], KnownKeys()
    for key in keys:
        known.add(key)
    assert [known.get(key.digest) for key in keys] == [None, None, keys[2]]


def test_requests_without_a_valid_key_are_counted_but_not_kept(start_server, transactional_db):
    server = start_server(LOG_LEVEL="WARNING")
    for key in ["dvc_" + "x" * 43, "nonsense", None, "", "dvc_"]:
        assert_problem(server.post(key, [log(message="secret")]), 401, "invalid_device_key")
    assert "secret" not in server.log
    assert "dvc_" not in server.log
    server.stop()  # writes the count, which is otherwise written once a minute
    assert [count.requests for count in RefusedKeyCount.objects.all()] == [5]
    assert "Refused 5 requests without a valid device key in the last minute, from 127.0.0.1 (5)\n" in server.log


async def test_refused_keys_are_counted_with_the_next_ones_if_the_database_fails(monkeypatch, caplog):
    async def fail(*arguments: object) -> None:
        raise OperationalError("a fault")

    keys = RefusedKeys()
    keys.add("10.0.0.1")
    with monkeypatch.context() as faults:
        faults.setattr("ingest.refused_keys.run_query", fail)
        await keys.write()
    assert not await RefusedKeyCount.objects.aexists()
    await keys.write()
    keys.add("10.0.0.2")
    await keys.write()
    assert caplog.messages == [
        "Refused 1 requests without a valid device key in the last minute, from 10.0.0.1 (1)",
        "Refused requests could not be counted in the database yet: OperationalError('a fault')",
        "Refused 1 requests without a valid device key in the last minute, from addresses already logged",
        "Refused 1 requests without a valid device key in the last minute, from 10.0.0.2 (1)",
    ]
    assert (await RefusedKeyCount.objects.aget()).requests == 2


async def test_refused_keys_of_more_addresses_than_are_counted_separately_are_counted(monkeypatch, caplog):
    monkeypatch.setattr("ingest.refused_keys.MAX_ADDRESSES", 2)
    keys = RefusedKeys()
    for source in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1", None):
        keys.add(source)
    await keys.write()
    (line,) = caplog.messages
    assert line.startswith("Refused 5 requests ")
    assert line.endswith(", from 10.0.0.1 (2), 10.0.0.2 (1)")
    assert (await RefusedKeyCount.objects.aget()).requests == 5


def test_the_counts_of_an_hour_are_added_up(db):
    for count in (3, 4):
        add_to_hour(count)
    assert RefusedKeyCount.objects.get().requests == 7


def test_revoking_twice_keeps_the_first_time(device_key):
    device_key.revoke()
    first = device_key.revoked_at
    device_key.revoke()
    assert device_key.revoked_at == first
