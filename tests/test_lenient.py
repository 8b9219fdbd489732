"""`Prefer: handling=lenient`: the good events of a batch are stored, and the bad ones kept for staff."""

import itertools
import json
import time

import pytest
from django.utils import timezone

from ingest.checking import check_leniently, dump
from ingest.errors import MalformedBatch
from ingest.models import IngestBatch, IngestEvent, RejectedBatch
from ingest.rejections import LEFT_OUT, Rejection, keep
from ingest.views import rejected_events
from tenants.models import Tenant
from tests.support.assertions import assert_problem
from tests.support.events import alert, log
from tests.support.rejected import BACKUP, BAD, LENIENT, body_of, named, page_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def keep_one(device_key):
    """Keeps a rejection, each unlike the others."""
    numbers = itertools.count()

    def keep_one(status: int) -> None:
        code = "malformed_json" if status == 400 else LEFT_OUT
        keep(Rejection(device_key.device, None, timezone.now(), status, code, "", [], b"[%d]" % next(numbers)))

    return keep_one


def test_refusals_do_not_push_out_the_bad_events_of_lenient_batches(keep_one, settings, monkeypatch):
    """Their device has forgotten them; a refused batch it still has."""
    settings.REJECTED_PER_DEVICE = 3
    monkeypatch.setattr("ingest.rejections.LENIENT_PER_DEVICE", 5)
    for status in [200] * 4 + [400] * 5:
        keep_one(status)
    statuses = RejectedBatch.objects.values_list("status", flat=True)
    assert sorted(statuses) == [200] * 4 + [400] * 3
    for _ in range(3):
        keep_one(200)
    assert sorted(statuses.all()) == [200] * 5 + [400] * 3
    bodies = [bytes(rejected.body) for rejected in RejectedBatch.objects.filter(status=200)]
    assert sorted(bodies)[0] == b"[10]"
    assert b"[0]" not in bodies


def test_the_good_events_of_a_lenient_batch_are_stored_and_the_others_kept(server, key, kept):
    body = body_of(log(), BAD, alert("good"), "no event", BAD)
    answers = [server.post(key, content=body, headers=LENIENT) for _ in range(2)]
    for answer in answers:
        assert answer.status_code == 200
        assert answer.headers["Preference-Applied"] == "handling=lenient"
        content = answer.json()
        assert (content["accepted"], content["rejected"]) == (2, 3)
        assert [error["index"] for error in content["errors"]] == [1, 3, 4]
    assert sorted(IngestEvent.objects.values_list("kind", flat=True)) == ["log", "security_alert"]
    assert IngestBatch.objects.get().byte_count == len(body)
    rejected = kept(1).get()
    assert json.loads(bytes(rejected.body)) == [BAD, "no event", BAD]
    assert [error["index"] for error in rejected.errors] == [0, 1, 2]
    assert (rejected.status, rejected.code, rejected.times) == (200, "events_left_out", 2)


def test_the_bad_events_of_a_lenient_batch_are_kept_whole(start_server, transactional_db, key, kept):
    """The device forgets them, so the limit on what is kept of a refused body must not truncate them."""
    server = start_server(REJECTED_MAX_BYTES="100")
    bad = [BAD | {"note": "x" * 100} for _ in range(10)]
    assert server.post(key, [log(), *bad], headers=LENIENT).status_code == 200
    rejected = kept(1).get()
    assert json.loads(bytes(rejected.body)) == bad
    assert rejected.is_whole
    server.stop()


def test_nothing_is_kept_of_a_lenient_batch_that_must_be_sent_again(server, key, device_key, kept):
    device_key.device.events_per_second, device_key.device.burst = 1, 1
    device_key.device.save()
    server.post(key, [log() for _ in range(20)])
    assert server.post(key, [log(), BAD], headers=LENIENT).status_code == 429
    assert server.post(key, [alert(), BAD], headers=LENIENT | named("a b")).status_code == 400
    assert [rejected.code for rejected in kept(1)] == ["invalid_idempotency_key"]


def test_a_lenient_batch_without_errors_is_like_any_other(server, key, kept):
    answer = server.post(key, [log(), log()], headers=LENIENT)
    assert (answer.status_code, answer.content) == (204, b"")
    assert IngestEvent.objects.count() == 2
    assert not kept(0).exists()


def test_an_unreadable_batch_is_refused_even_if_it_is_lenient(server, key):
    assert_problem(server.post(key, content=b"[{", headers=LENIENT), 400, "malformed_json")
    for event in (log(), BAD):
        assert_problem(server.post(key, [event] * 1001, headers=LENIENT), 413, "too_many_events")
    assert IngestEvent.objects.count() == 0


@pytest.mark.once
def test_bad_events_that_can_be_read_but_not_written_again_are_a_malformed_batch():
    """Which nesting is too deep for either depends on the version of Python."""
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(MalformedBatch, match="nested too deeply"):
        dump(nested)


def test_a_lenient_batch_without_good_events_is_kept_whole(server, key, kept):
    answer = server.post(key, [BAD], headers=LENIENT)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 0)
    assert json.loads(bytes(kept(1).get().body)) == [BAD]
    assert not IngestBatch.objects.exists()


def test_events_of_a_module_that_is_off_are_left_out_of_a_lenient_batch(server, key, tenant, admin_client, kept):
    tenant.backup_enabled = False
    tenant.save()
    answer = server.post(key, [BACKUP, log()], headers=LENIENT)
    assert [(error["index"], error["code"]) for error in answer.json()["errors"]] == [(0, "module_disabled")]
    tenant.backup_enabled = True
    tenant.save()
    admin_client.post(page_of(kept(1).get(), "send_again"))
    assert sorted(IngestEvent.objects.values_list("kind", flat=True)) == ["backup_event", "log"]


def test_the_answer_to_a_repeated_lenient_batch_says_how_much_is_stored(forgetful_server, key, tenant, kept):
    """In between, the module was switched on, so nothing in the batch is bad any more."""
    tenant.backup_enabled = False
    tenant.save()
    body = body_of(BACKUP, log())
    assert forgetful_server.post(key, content=body, headers=LENIENT).json()["accepted"] == 1
    tenant.backup_enabled = True
    tenant.save()
    time.sleep(1)
    for headers in (LENIENT, {}):
        answer = forgetful_server.post(key, content=body, headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "rejected": 1, "errors": []})
    assert IngestEvent.objects.get().kind == "log"
    assert json.loads(bytes(kept(1).get().body)) == [BACKUP]


def switch_backup(tenant: Tenant, *, on: bool) -> None:
    tenant.backup_enabled = on
    tenant.save()
    time.sleep(1)  # until `forgetful_server` has forgotten its keys


@pytest.mark.parametrize("headers", [LENIENT, LENIENT | {"Idempotency-Key": "a"}])
def test_nothing_is_kept_of_a_repeat_whose_batch_is_stored_whole(forgetful_server, key, tenant, headers):
    """Its 204 was lost, and the module was switched off before the repeat."""
    bodies = body_of(BACKUP, log()), body_of(BACKUP)
    for number, body in enumerate(bodies):
        assert forgetful_server.post(key, content=body, headers=renamed(headers, number)).status_code == 204
    switch_backup(tenant, on=False)
    for number, body in enumerate(bodies):
        answer = forgetful_server.post(key, content=body, headers=renamed(headers, number))
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (204, "handling=lenient")
    assert not RejectedBatch.objects.exists()


def renamed(headers: dict[str, str], number: int) -> dict[str, str]:
    name = headers.get("Idempotency-Key")
    return headers | {"Idempotency-Key": f"{name}{number}"} if name else headers


def test_a_repeat_of_a_partly_stored_batch_with_more_bad_events_keeps_no_more(forgetful_server, key, tenant, kept):
    body = body_of(BACKUP, BAD, log())
    assert forgetful_server.post(key, content=body, headers=LENIENT).json()["accepted"] == 2
    switch_backup(tenant, on=False)
    answer = forgetful_server.post(key, content=body, headers=LENIENT)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 2, "rejected": 1, "errors": []})
    assert json.loads(bytes(kept(1).get().body)) == [BAD]


def test_a_name_with_another_body_is_refused_before_its_bad_events_are_kept(server, key, kept):
    assert server.post(key, [log()], headers=named("a")).status_code == 204
    refused = server.post(key, [log(), BAD], headers=LENIENT | named("a"))
    assert_problem(refused, 422, "idempotency_key_reused")
    assert kept(1).get().status == 422


@pytest.mark.parametrize("name", [{}, {"Idempotency-Key": "a"}])
@pytest.mark.parametrize("is_sent_again_first", [False, True])
def test_a_batch_without_good_events_is_stored_once(
    forgetful_server, key, tenant, admin_client, kept, name, is_sent_again_first
):
    """Its answer was lost, and the module is switched on before staff send it again and its device repeats it."""
    tenant.backup_enabled = False
    tenant.save()
    body = b"[ " + body_of(BACKUP)[1:]  # not as we would write it
    assert forgetful_server.post(key, content=body, headers=LENIENT | name).json()["accepted"] == 0
    rejected = kept(1).get()
    switch_backup(tenant, on=True)
    if is_sent_again_first:
        admin_client.post(page_of(rejected, "send_again"))
    assert forgetful_server.post(key, content=body, headers=LENIENT | name).status_code == 204
    admin_client.post(page_of(rejected, "send_again"))
    assert IngestEvent.objects.count() == 1


@pytest.mark.parametrize("name", [None, "a"])
def test_bad_events_are_not_sent_again_unless_the_others_are_stored_without_them(
    server, key, device_key, tenant, admin_client, name
):
    """The server failed after it had kept the bad events; the module is switched on before the device repeats."""
    body = body_of(BACKUP, log())
    tenant.backup_enabled = False
    tenant.save()
    batch, bad = check_leniently(body, device_key, None, timezone.now())
    batch.idempotency_key = name
    keep(rejected_events(batch, bad, body))
    tenant.backup_enabled = True
    tenant.save()
    rejected = RejectedBatch.objects.get()
    text = admin_client.post(page_of(rejected, "send_again"), follow=True).text
    assert "Its device was told so, and may send all of it again." in text
    headers = LENIENT | (named(name) if name else {})
    assert server.post(key, content=body, headers=headers).status_code == 204
    text = admin_client.post(page_of(rejected, "send_again"), follow=True).text
    assert "Its batch was stored with some of these events." in text
    assert IngestEvent.objects.count() == 2


def test_the_same_bad_event_in_two_batches_is_sent_again_twice(server, key, tenant, admin_client, kept):
    tenant.backup_enabled = False
    tenant.save()
    for _ in range(2):
        assert server.post(key, [BACKUP, log()], headers=LENIENT).status_code == 200
    tenant.backup_enabled = True
    tenant.save()
    for each in kept(2):
        admin_client.post(page_of(each, "send_again"))
    assert sorted(IngestEvent.objects.values_list("kind", flat=True)) == ["backup_event"] * 2 + ["log"] * 2


def test_a_refused_repeat_does_not_cut_off_what_is_kept_of_a_lenient_batch(start_server, transactional_db, key, kept):
    server = start_server(REJECTED_MAX_BYTES="100")
    bad = [BAD | {"note": "x" * 100}]
    for headers in ({}, LENIENT, {}):
        server.post(key, bad, headers=headers)
    assert sorted((each.status, each.is_whole) for each in kept(3)) == [(200, True), (400, False)]
    server.stop()


@pytest.mark.parametrize(
    ("prefer", "status"),
    [
        ("handling=lenient", 200),
        ('respond-async, handling="lenient"; x=1', 200),
        ("Handling=Lenient", 200),
        ("handling=strict, handling=lenient", 400),
        ("return=minimal", 400),
        ("handling", 400),
        (",;=", 400),
    ],
)
def test_the_preference_is_parsed_as_its_rfc_says(server, key, prefer, status):
    assert server.post(key, [log(), BAD], headers={"Prefer": prefer}).status_code == status
