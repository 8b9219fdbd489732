"""Refused batches can be found and sent again."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from alerts.models import SecurityAlert
from devices.models import Device, DeviceKey
from ingest import refusals
from ingest.backlog import MAX_REQUESTS
from ingest.models import IngestBatch, IngestEvent, RejectedBatch
from ingest.rejections import Rejection
from tenants.models import AuditEntry, Tenant, Verb
from tests.support.assertions import assert_problem
from tests.support.events import alert, log
from tests.support.rejected import BACKUP, BAD, LENIENT, body_of, named, page_of
from tests.support.sockets import receive

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_refused_batch_is_kept_with_its_reason(server, key, device_key, tenant, admin_client, kept):
    Tenant.objects.filter(pk=tenant.pk).update(backup_enabled=False)
    bodies = {
        "invalid_events": body_of(log(), BAD),
        "malformed_json": b"[{",
        "not_an_array": b"{}",
        "module_disabled": body_of(BACKUP),
        "too_many_events": body_of(*[log()] * 1001),
    }
    for code, body in bodies.items():
        assert server.post(key, content=body).json()["code"] == code
    assert server.post(key, content=b"[]", headers={"Content-Type": "text/plain"}).status_code == 415
    by_code = {rejected.code: rejected for rejected in kept(6)}
    assert set(by_code) == {*bodies, "unsupported_content_type"}
    for code, body in bodies.items():
        assert bytes(by_code[code].body) == body
        assert (by_code[code].byte_count, by_code[code].times, by_code[code].source) == (len(body), 1, "127.0.0.1")
        assert (by_code[code].tenant_id, by_code[code].device_id) == (tenant.pk, device_key.device_id)
    assert by_code["invalid_events"].errors == [
        {"index": 1, "field": "data.message", "code": "required", "detail": "This field is required."}
    ]
    assert by_code["unsupported_content_type"].status == 415
    assert bytes(by_code["unsupported_content_type"].body) == b""
    assert "The body was not read." in admin_client.get(page_of(by_code["unsupported_content_type"])).text


def test_nothing_is_kept_without_a_valid_key(server, key, device_key, make_key, kept):
    assert server.post("dvc_" + "x" * 43, content=b"[{").status_code == 401
    assert server.post(None, content=b"[{").status_code == 401
    device_key.revoke()
    assert server.post(key, content=body_of(log())).status_code == 401
    other, plaintext = make_key()
    server.post(plaintext, content=b"[{")
    kept(1, device=other.device)  # the last one sent
    assert not RejectedBatch.objects.filter(device=device_key.device).exists()


def test_the_same_batch_refused_again_is_counted(server, key, make_key, kept):
    for _ in range(3):
        server.post(key, content=b"[{")
    other, plaintext = make_key()
    server.post(plaintext, content=b"[{")
    assert kept(3).get().times == 3
    assert kept(1, device=other.device).get().times == 1


def test_the_newest_few_of_each_device_are_kept_up_to_a_size_limit(
    start_server, transactional_db, make_key, admin_client
):
    server = start_server(REJECTED_PER_DEVICE="3", REJECTED_MAX_BYTES="100")
    (first, key), (_, other) = make_key(), make_key()
    server.post(other, content=b"[{")
    for number in range(5):
        server.post(key, content=b"[" + str(number).encode() * 150)
    server.stop()  # after keeping everything
    of_first = RejectedBatch.objects.filter(device=first.device_id)
    assert sorted(bytes(rejected.body)[1:2] for rejected in of_first) == [b"2", b"3", b"4"]
    assert {(len(rejected.body), rejected.byte_count) for rejected in of_first} == {(100, 151)}
    assert RejectedBatch.objects.count() == 4
    text = admin_client.get(page_of(of_first[0])).content.decode()
    assert "of which 100 bytes are kept" in text
    assert "Send it again" not in text
    assert admin_client.post(page_of(of_first[0], "send_again")).status_code == 302
    assert of_first.count() == 3


def test_a_list_reads_no_body(server, key, admin_client, kept):
    """Fifty of them may be hundreds of megabytes."""
    server.post(key, content=b"[{")
    kept(1)
    with CaptureQueriesContext(connection) as queries:
        text = admin_client.get(reverse("admin:ingest_rejectedbatch_changelist")).text
    assert "2 bytes" in text.replace("\xa0", " ")
    read = [query["sql"].partition(" FROM ")[0].replace('LENGTH("rejected_batches"."body")', "") for query in queries]
    assert [sql for sql in read if '"rejected_batches"."body"' in sql] == []


def test_a_rejected_batch_is_gone_after_a_day(server, key, admin_client, kept):
    server.post(key, content=b"[{")
    rejected = kept(1).get()
    call_command("maintain")
    assert admin_client.get(page_of(rejected)).status_code == 200
    RejectedBatch.objects.update(received_at=timezone.now() - timedelta(hours=25))
    assert admin_client.get(page_of(rejected)).status_code == 302  # for staff immediately,
    call_command("maintain")
    assert not kept(0).exists()  # and in the table at the next maintenance


def test_a_batch_is_sent_again_after_a_fix(server, key, tenant, admin_client, log_in, kept):
    Tenant.objects.filter(pk=tenant.pk).update(backup_enabled=False)
    event = alert("held back")
    assert server.post(key, content=body_of(BACKUP, event)).status_code == 403
    rejected = kept(1).get()
    answer = admin_client.post(page_of(rejected, "send_again"), follow=True).content.decode()
    assert "It is still refused" in answer
    assert kept(1).count() == 1
    tenant.backup_enabled = True
    tenant.save()
    assert admin_client.get(page_of(rejected, "send_again")).status_code == 200
    assert IngestEvent.objects.count() == 0  # a GET changes nothing
    answer = admin_client.post(page_of(rejected, "send_again"), follow=True).content.decode()
    assert "Stored: 2 events" in answer
    assert sorted(IngestEvent.objects.values_list("kind", flat=True)) == ["backup_event", "security_alert"]
    assert not kept(0).exists()
    sent = AuditEntry.objects.get(verb=Verb.REJECTED_BATCH_SENT_AGAIN)
    assert (sent.actor, sent.owner_id, sent.after) == ("admin", rejected.device_id, {"events": 2})
    with server.socket(log_in(tenant), query="?since=0") as page:
        assert receive(page, 1)[0]["title"] == "held back"


def test_a_batch_cannot_be_sent_again_without_a_usable_key(server, key, device_key, admin_client, kept):
    server.post(key, content=b"[{")
    DeviceKey.objects.update(revoked_at=timezone.now())
    answer = admin_client.post(page_of(kept(1).get(), "send_again"), follow=True).content.decode()
    assert "It is still refused" in answer


def test_staff_see_only_their_tenants_batches_and_need_permission_to_send_them(server, make_key, make_tenant, kept):
    own, other = make_tenant(), make_tenant()
    for tenant in (own, other):
        server.post(make_key(tenant)[1], content=b"[{")
    user = User.objects.create_user("staff", is_staff=True)
    user.tenants.add(own)
    user.user_permissions.set(Permission.objects.filter(codename="view_rejectedbatch"))
    client = Client()
    client.force_login(user)
    mine, others = kept(1, tenant=own).get(), kept(1, tenant=other).get()
    assert len(client.get(reverse("admin:ingest_rejectedbatch_changelist")).context["cl"].result_list) == 1
    assert client.get(page_of(mine)).status_code == 200
    assert client.get(page_of(mine, "download")).content == b"[{"
    assert client.get(page_of(others)).status_code == 302
    assert client.get(page_of(others, "download")).status_code == 302
    assert client.post(page_of(mine, "send_again")).status_code == 403


@pytest.mark.parametrize(
    "body", [b"[</pre><script>alert(1)</script>", b'["\\ud800"]', b"\xff\xfe[\x00", b'{"a": 1e999}', b"[" * 50_000]
)
def test_the_page_shows_whatever_was_sent_as_text(server, key, admin_client, body, kept):
    assert server.post(key, content=body).status_code == 400
    answer = admin_client.get(page_of(kept(1).get()))
    assert answer.status_code == 200
    assert b"<script>alert" not in answer.content


def test_rejected_batches_are_found_by_code_and_by_device(server, key, device_key, make_key, admin_client, kept):
    server.post(key, content=b"[{")
    server.post(key, content=b"{}")
    other, plaintext = make_key()
    server.post(plaintext, content=b"{}")
    url = reverse("admin:ingest_rejectedbatch_changelist")
    kept(2)
    kept(1, device=other.device)
    found = admin_client.get(url, {"code": "not_an_array"}).context["cl"].result_list
    assert {rejected.code for rejected in found} == {"not_an_array"}
    assert {device_key.device_id, other.device_id} <= {rejected.device_id for rejected in found}
    assert len(admin_client.get(url, {"device__id__exact": device_key.device_id}).context["cl"].result_list) == 2


def test_an_idempotency_key_belongs_to_one_body(server, key, make_key, kept):
    one, two = body_of(log()), body_of(log())
    assert server.post(key, content=one, headers=named('"a-1"')).status_code == 204
    assert server.post(key, content=one, headers=named('"a-1"')).status_code == 204
    assert server.post(key, content=one, headers=named("a-1")).status_code == 204
    refused = server.post(key, content=two, headers=named('"a-1"'))
    assert_problem(refused, 422, "idempotency_key_reused")
    assert IngestBatch.objects.count() == 1
    assert kept(1).get().code == "idempotency_key_reused"
    assert server.post(key, content=two, headers=named('"a-2"')).status_code == 204
    assert server.post(make_key()[1], content=two, headers=named('"a-1"')).status_code == 204
    assert set(IngestBatch.objects.values_list("idempotency_key", flat=True)) == {"a-1", "a-2"}


def test_identical_batches_with_two_idempotency_keys_are_kept_and_sent_again_as_two(
    forgetful_server, key, tenant, admin_client, kept
):
    tenant.backup_enabled = False
    tenant.save()
    body = body_of(BACKUP)
    for name in ("a", "b", "a"):
        assert forgetful_server.post(key, content=body, headers=named(name)).status_code == 403
    rejected = kept(3)
    assert set(rejected.values_list("idempotency_key", "times")) == {("a", 2), ("b", 1)}
    tenant.backup_enabled = True
    tenant.save()
    for each in rejected:
        admin_client.post(page_of(each, "send_again"))
    assert set(IngestBatch.objects.values_list("idempotency_key", flat=True)) == {"a", "b"}
    time.sleep(1)
    assert forgetful_server.post(key, content=body, headers=named("a")).status_code == 204
    assert IngestEvent.objects.count() == 2


def test_the_bad_events_of_two_batches_with_idempotency_keys_stay_two(server, key, tenant, admin_client, kept):
    tenant.backup_enabled = False
    tenant.save()
    for name in ("a", "b"):
        assert server.post(key, [BACKUP, log()], headers=LENIENT | named(name)).status_code == 200
    tenant.backup_enabled = True
    tenant.save()
    for each in kept(2):
        admin_client.post(page_of(each, "send_again"))
    assert sorted(IngestEvent.objects.values_list("kind", flat=True)) == ["backup_event"] * 2 + ["log"] * 2


def test_a_batch_whose_idempotency_key_was_used_meanwhile_is_not_sent_again(server, key, tenant, admin_client, kept):
    Tenant.objects.filter(pk=tenant.pk).update(backup_enabled=False)
    assert server.post(key, [BACKUP], headers=named("a")).status_code == 403
    assert server.post(key, [log()], headers=named("a")).status_code == 204
    Tenant.objects.filter(pk=tenant.pk).update(backup_enabled=True)
    text = admin_client.post(page_of(kept(1).get(), "send_again"), follow=True).text
    assert "It is still refused: This Idempotency-Key was used for another body." in text
    assert kept(1).exists()
    assert IngestEvent.objects.get().kind == "log"


def test_a_refused_body_does_not_use_up_its_idempotency_key(server, key):
    assert server.post(key, [BAD], headers=named("b")).status_code == 400
    assert server.post(key, [log()], headers=named("b")).status_code == 204


@pytest.mark.parametrize("name", ["", '""', "with space", "ö", "x" * 256, '"a"b"', "a\\b"])
def test_an_invalid_idempotency_key_is_400(server, key, name):
    answer = server.post(key, content=body_of(log()), headers={"Idempotency-Key": name.encode()})
    assert_problem(answer, 400, "invalid_idempotency_key")
    assert not IngestBatch.objects.exists()


def test_only_one_of_many_simultaneous_bodies_with_one_idempotency_key_is_stored(server, key):
    bodies = [body_of(log(), alert()) for _ in range(30)]
    with ThreadPoolExecutor(MAX_REQUESTS) as pool:
        answers = list(pool.map(lambda body: server.post(key, content=body, headers=named("same")), bodies))
    assert sorted({answer.status_code for answer in answers}) == [204, 422]
    assert [answer.status_code for answer in answers].count(204) == 1
    assert IngestBatch.objects.count() == SecurityAlert.objects.count() == 1
    assert IngestEvent.objects.count() == 2


def test_a_device_is_answered_before_its_refusal_is_kept(server, key, device_key, kept):
    """Even while the table is locked."""
    with transaction.atomic():
        lock_rejected_batches()
        began = time.monotonic()
        answers = [server.post(key, content=b"[{" + b" " * number).status_code for number in range(20)]
        # A batch would hold SQLite's lock until it is answered 503, and a refusal is given up earlier than that.
        assert connection.vendor == "sqlite" or server.post(key, [log()]).status_code == 204
        assert time.monotonic() - began < 8
    assert set(answers) == {400}
    assert kept(20).count() == 20


def lock_rejected_batches() -> None:
    """In the open transaction. SQLite has a single lock, which the transaction already holds."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("LOCK TABLE rejected_batches IN ACCESS EXCLUSIVE MODE")


def test_repeated_refusals_of_a_device_are_one_log_line_for_each_code(start_server, transactional_db, key, device_key):
    server = start_server()
    bad = [BAD | {"data": {"level": "x" * 500}} for _ in range(20)]
    for _ in range(30):
        assert server.post(key, bad).status_code == 400
    assert server.post(key, content=b"[{").status_code == 400
    lines = [line for line in server.log.splitlines() if "Refused" in line]
    assert len(lines) == 2
    first = lines[0].partition("Refused")[2]
    assert f"{device_key.device.tenant.slug}/{device_key.device.name}: 400 invalid_events." in first
    assert "Event 0, data.level: Must have at most 32 characters." in first
    assert len("Refused" + first) <= 300
    server.stop()


async def test_repeated_refusals_are_counted_in_one_line_a_minute(monkeypatch, caplog):
    monkeypatch.setattr(refusals, "LINE_EVERY_SECONDS", 0.05)
    lines = refusals.RefusalLines()
    device = Device(name="press-01", tenant=Tenant(slug="acme"))
    problem = {"status": 400, "code": "malformed_json", "detail": "No JSON."}
    for _ in range(22):
        lines.add(device, problem)
    await asyncio.sleep(0.5)
    assert caplog.messages == [
        "Refused a batch from acme/press-01: 400 malformed_json. No JSON.",
        "Refused 21 more from acme/press-01 in the last minute: malformed_json",
    ]
    lines.add(device, problem)
    assert len(caplog.messages) == 3


async def test_refusals_for_too_many_reasons_at_once_share_a_line(monkeypatch, caplog):
    monkeypatch.setattr(refusals, "LINE_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(refusals, "MAX_REASONS", 2)
    lines = refusals.RefusalLines()
    for number in range(5):
        device = Device(name=f"press-{number}", tenant=Tenant(slug="acme"))
        lines.add(device, {"status": 400, "code": "malformed_json", "detail": "No JSON."})
    await asyncio.sleep(0.5)
    assert caplog.messages == [
        "Refused a batch from acme/press-0: 400 malformed_json. No JSON.",
        "Refused a batch from acme/press-1: 400 malformed_json. No JSON.",
        "Refused 3 more from others in the last minute: other reasons",
    ]


async def test_batches_that_come_too_fast_to_be_kept_are_counted_in_the_log(monkeypatch, caplog, device_key):
    started, held = asyncio.Event(), asyncio.Event()

    async def hold(*arguments: object) -> None:
        started.set()
        await held.wait()

    monkeypatch.setattr(refusals, "run_query", hold)
    queue = refusals.RejectionQueue()
    body = b"x" * (refusals.MAX_WAITING_BYTES // 2)
    rejection = Rejection(device_key.device, None, timezone.now(), 400, "malformed_json", "", [], body)
    queue.put(rejection)
    await started.wait()
    for _ in range(3):
        queue.put(rejection)
    held.set()
    await queue.close()
    assert caplog.messages == ["2 rejected batches could not be kept: they came too fast"]


@pytest.fixture
def two_devices(make_key) -> list[Device]:
    return [make_key()[0].device for _ in range(2)]


async def test_one_device_cannot_fill_the_whole_queue(monkeypatch, caplog, two_devices):
    busy, quiet = two_devices
    held, names = asyncio.Event(), []

    async def hold(_: object, rejection: Rejection) -> None:
        await held.wait()
        names.append(rejection.device.name)

    monkeypatch.setattr(refusals, "run_query", hold)
    queue = refusals.RejectionQueue()

    def put(device: Device, size: int = 2) -> None:
        queue.put(Rejection(device, None, timezone.now(), 400, "malformed_json", "", [], b"x" * size))

    for _ in range(refusals.MAX_WAITING + 10):
        put(busy)
    put(quiet)
    for _ in range(3):
        put(busy, refusals.DEVICE_WAITING_BYTES)
    put(quiet, refusals.MAX_WAITING_BYTES // 8)
    held.set()
    await queue.close()
    assert names.count(quiet.name) == 2
    assert names.count(busy.name) == refusals.DEVICE_WAITING
    assert "rejected batches could not be kept" in caplog.text
