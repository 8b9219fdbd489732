"""Devices that register themselves with a provisioning key."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from devices import registration
from devices.authentication import InvalidProvisioningKey
from devices.models import Device, ProvisioningKey
from tests.support.assertions import assert_problem
from tests.support.events import log
from tests.support.servers import servers_only

pytestmark = pytest.mark.django_db(transaction=True)

PRESS = {"name": "press-01", "location": "Hall 3", "type": "edge-gateway"}


@pytest.fixture
def register(server):
    def register(key: str | bytes | None, body: object = PRESS, **kwargs) -> httpx.Response:
        return server.register(key, body, **kwargs)

    return register


def test_a_device_registers_itself_and_sends(server, register, issue, tenant):
    key, plaintext = issue()
    answer = register(plaintext)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    device = Device.objects.get()
    assert (device.name, device.location, device.type) == ("press-01", "Hall 3", "edge-gateway")
    assert (device.tenant, device.registered_with) == (tenant, key)
    given = answer.json()
    assert given == {"device_id": device.pk, "device_key": given["device_key"], "tenant_id": tenant.pk}
    assert server.post(given["device_key"], [log()]).status_code == 204
    key.refresh_from_db()
    assert (key.use_count, key.state) == (1, "used up")
    assert given["device_key"] not in server.log
    assert plaintext not in server.log


@pytest.mark.parametrize("optional", [{}, {"location": None, "type": None}, {"location": "", "firmware": "7"}])
def test_only_the_name_is_required(register, issue, optional):
    assert register(issue()[1], {"name": "press-01", **optional}).status_code == 201
    assert (Device.objects.get().location, Device.objects.get().type) == ("", "")


@pytest.mark.parametrize("accept", ["text/html", "application/xml;q=0.9", "application/json;q=0", "nonsense", ""])
def test_the_answer_is_json_whatever_the_device_accepts(register, issue, accept):
    answer = register(issue()[1], headers={"Accept": accept})
    assert (answer.status_code, answer.headers["Content-Type"]) == (201, "application/json")
    assert_problem(register("prv_wrong", headers={"Accept": accept}), 401, "invalid_provisioning_key")


def test_every_refused_key_gets_the_same_answer(register, issue, key):
    revoked, revoked_plaintext = issue()
    revoked.revoke()
    _, expired = issue(expires_at=timezone.now() - timedelta(seconds=1))
    _, used_up = issue()
    assert register(used_up, {"name": "first"}).status_code == 201
    wrong = [revoked_plaintext, expired, used_up, key, "prv_" + "x" * 43, "prv_", "", b"prv_\xe9", None]
    answers = set()
    for plaintext in wrong:
        response = register(plaintext)
        assert_problem(response, 401, "invalid_provisioning_key")
        assert response.headers["WWW-Authenticate"].startswith("ProvisioningKey")
        answers.add(response.content)
    assert len(answers) == 1
    assert register(used_up, {"name": "second"}).content in answers
    assert Device.objects.filter(registered_with__isnull=False).count() == 1


def test_a_used_up_key_does_not_reveal_which_names_exist(register, issue, make_key, tenant):
    make_key(tenant)[0].device.__class__.objects.update(name="press-01")
    _, used_up = issue()
    register(used_up, {"name": "first"})
    assert register(used_up).content == register(used_up, {"name": "nobody"}).content


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({}, "name", "required"),
        ({"name": ""}, "name", "blank"),
        ({"name": None}, "name", "null"),
        ({"name": "x" * 201}, "name", "max_length"),
        ({"name": "a\x00"}, "name", "null_characters_not_allowed"),
        ({"name": "a", "type": "x" * 101}, "type", "max_length"),
        ({"name": "a", "location": ["x"]}, "location", "invalid"),
        ([PRESS], None, "invalid"),
    ],
)
def test_the_answer_to_a_bad_registration_says_what_is_wrong(register, issue, body, field, code):
    key, plaintext = issue()
    [error] = assert_problem(register(plaintext, body), 400, "invalid_registration")
    assert (error["index"], error["field"], error["code"]) == (None, field, code)
    key.refresh_from_db()
    assert key.use_count == 0
    assert not Device.objects.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"name": NaN}',
        b'{"name": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b'{"type": 1e999}',
    ],
)
def test_a_body_that_is_not_json_is_refused(register, issue, content):
    response = register(issue()[1], content=content)
    assert response.status_code == 400, response.text
    assert response.json()["code"] in ("parse_error", "invalid_registration")
    assert not Device.objects.exists()


def test_a_content_type_other_than_json_is_refused(register, issue):
    assert_problem(register(issue()[1], data=PRESS), 415, "unsupported_media_type")


def test_a_name_that_is_taken_does_not_use_up_the_key(register, issue, make_key, make_tenant, tenant):
    make_key(tenant)
    Device.objects.update(name="press-01")
    key, plaintext = issue()
    assert_problem(register(plaintext), 409, "device_name_taken")
    key.refresh_from_db()
    assert key.use_count == 0
    other = make_tenant()
    assert register(issue(tenant=other)[1]).json()["tenant_id"] == other.pk


@servers_only
@pytest.mark.parametrize("table", ["devices", "device_keys"])
def test_an_id_that_is_taken_is_503_once(register, issue, make_key, table):
    for _ in range(3):
        make_key()
    key, plaintext = issue()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT setval('{table}_id_seq', min(id)) FROM {table}")
    assert_problem(register(plaintext), 503, "storage_unavailable")
    assert register(plaintext).status_code == 201
    key.refresh_from_db()
    assert key.use_count == 1


def test_a_key_that_is_revoked_just_after_it_was_accepted_registers_nothing(issue):
    accepted, _ = issue()
    ProvisioningKey.objects.update(revoked_at=timezone.now())
    with pytest.raises(InvalidProvisioningKey), transaction.atomic():
        registration.register(accepted, None, timezone.now(), name="press-01")
    assert not Device.objects.exists()


def test_the_limit_holds_for_devices_that_register_at_the_same_time(start_server, register, issue, server):
    key, plaintext = issue(usage_limit=7)
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda number: register(plaintext, {"name": f"press-{number}"}), range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] * 7 + [401] * 13
    key.refresh_from_db()
    assert key.use_count == Device.objects.count() == 7


def test_the_command_prints_only_the_key(capsys, tenant, register):
    call_command("create_provisioning_key", tenant.slug, "Delivery of May", "--uses", "3", "--days", "7")
    plaintext = capsys.readouterr().out.strip()
    key = ProvisioningKey.objects.get()
    assert (key.label, key.usage_limit, key.state) == ("Delivery of May", 3, "active")
    assert timedelta(days=6) < key.expires_at - timezone.now() < timedelta(days=7)
    assert register(plaintext).status_code == 201


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["nobody", "x"], "nobody"),
        (["TENANT", ""], "label"),
        (["TENANT", "x", "--uses", "0"], "--uses"),
        (["TENANT", "x", "--days", "0"], "--days"),
    ],
)
def test_the_command_says_what_is_wrong(tenant, arguments, culprit):
    with pytest.raises(CommandError, match=culprit):
        call_command("create_provisioning_key", *[tenant.slug if each == "TENANT" else each for each in arguments])
    assert not ProvisioningKey.objects.exists()
