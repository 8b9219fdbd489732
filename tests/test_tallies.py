"""Refusals and latencies, counted by the minute."""

import asyncio
import threading
from collections import Counter
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.utils import timezone

from devices.models import DeviceKey
from ingest import tallies
from ingest.models import LatencyCount, RefusalCount
from ingest.tallies import KEPT_FOR, LATENCIES, Tally
from tests.support.events import log, telemetry
from tests.support.servers import servers_only
from tests.support.waiting import wait_for

MINUTE = timezone.now().replace(second=0, microsecond=0)


@pytest.fixture
def quick_server(altered_server):
    """A server that stores its counts soon."""
    return altered_server("import ingestcloud.asgi, ingest.tallies as t; t.EVERY_SECONDS = 0.1")


def refused() -> dict[tuple[int, str], int]:
    """How often each device was refused, for each reason."""
    found: Counter[tuple[int, str]] = Counter()
    for row in RefusalCount.objects.all():
        found[row.device_id, row.code] += row.requests
    return dict(found)


def test_every_refusal_that_has_a_device_is_counted_with_its_reason(quick_server, make_key, tenant):
    ours, plaintext = make_key(tenant)
    other, other_plaintext = make_key()
    for _ in range(3):
        assert quick_server.post(plaintext, [telemetry(cpu_percent="much")]).status_code == 400
    assert quick_server.post(plaintext, content=b"{").status_code == 400
    lenient = {"Prefer": "handling=lenient"}
    assert quick_server.post(plaintext, [log(), telemetry(cpu_percent="much")], headers=lenient).status_code == 200
    assert quick_server.post(other_plaintext, [{"kind": "fire"}]).status_code == 400
    assert quick_server.post("dvc_unknown", [log()]).status_code == 401
    expected = {
        (ours.device_id, "invalid_events"): 3,
        (ours.device_id, "malformed_json"): 1,
        (ours.device_id, "events_left_out"): 1,
        (other.device_id, "invalid_events"): 1,
    }
    wait_for(lambda: refused() == expected)
    assert set(RefusalCount.objects.filter(device=ours.device).values_list("tenant", flat=True)) == {tenant.pk}


def test_a_revoked_or_expired_key_is_named_for_staff_only(quick_server, make_key):
    """The answer is the one for an unknown key."""
    revoked, revoked_plaintext = make_key()
    revoked.revoke()
    expired, expired_plaintext = make_key(expires_at=timezone.now() - timedelta(days=1))
    answers = {quick_server.post(key, [log()]).content for key in (revoked_plaintext, expired_plaintext, "dvc_x", None)}
    assert len(answers) == 1
    wait_for(lambda: refused() == {(revoked.device_id, "key_revoked"): 1, (expired.device_id, "key_expired"): 1})


def test_a_key_that_is_revoked_while_a_process_remembers_it_is_counted_too(quick_server, make_key):
    key, plaintext = make_key()
    assert quick_server.post(plaintext, [log()]).status_code == 204
    DeviceKey.objects.filter(pk=key.pk).update(revoked_at=timezone.now())
    assert quick_server.post(plaintext, [log()]).status_code == 401
    assert quick_server.post(plaintext, [log()]).status_code == 401
    wait_for(lambda: sum(refused().values()) == 2)


def test_stored_batches_are_counted_by_how_long_they_took(quick_server, key):
    for _ in range(20):
        assert quick_server.post(key, [log()]).status_code == 204
    assert quick_server.post(key, content=b"{").status_code == 400
    wait_for(lambda: sum(LatencyCount.objects.values_list("requests", flat=True)) == 20)
    assert set(LatencyCount.objects.values_list("milliseconds", flat=True)) <= set(LATENCIES)


def test_a_server_that_stops_stores_its_counts(start_server, transactional_db, key):
    server = start_server()
    server.post(key, [log()])
    server.post(key, content=b"{")
    server.stop()
    assert sum(refused().values()) == 1
    assert LatencyCount.objects.get().requests == 1


@pytest.mark.django_db
def test_counts_are_added_to_those_of_other_processes(device_key):
    refusal = (MINUTE, device_key.device_id, device_key.device.tenant_id, "rate_limited")
    other = (MINUTE, device_key.device_id, device_key.device.tenant_id, "overloaded")
    tallies._store_refusals(Counter({refusal: 2}))
    tallies._store_refusals(Counter({refusal: 3, other: 1}))
    assert {code: count for (_, code), count in refused().items()} == {"rate_limited": 5, "overloaded": 1}
    tallies._store_latencies(Counter({(MINUTE, 5): 2, (MINUTE, 10): 1}))
    tallies._store_latencies(Counter({(MINUTE, 5): 2}))
    assert dict(LatencyCount.objects.values_list("milliseconds", "requests")) == {5: 4, 10: 1}


@servers_only
@pytest.mark.django_db(transaction=True)
def test_processes_that_store_at_the_same_time_do_not_wait_in_a_circle(device_key, monkeypatch):
    monkeypatch.setattr(tallies, "STEP_ROWS", 3)
    rows = [(MINUTE, device_key.device_id, device_key.device.tenant_id, f"code {n}") for n in range(50)]
    failed = []

    def store(rows) -> None:
        try:
            for _ in range(20):
                tallies._store_refusals(Counter(dict.fromkeys(rows, 1)))
        except Exception as error:  # noqa: BLE001
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=store, args=[order]) for order in (rows, rows[::-1], rows[25:] + rows[:25])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert sum(refused().values()) == 3 * 20 * 50


async def test_what_could_not_be_stored_is_stored_with_the_next_counts(monkeypatch, caplog):
    monkeypatch.setattr(tallies, "EVERY_SECONDS", 0.01)
    stored: list[Counter[str]] = []
    tally: Tally[str] = Tally(stored.append)

    async def fail(*_: object) -> None:
        raise OperationalError("down")

    async def succeed(store, counts) -> None:
        store(counts)

    monkeypatch.setattr(tallies, "run_query", fail)
    tally.add("a")
    await asyncio.sleep(0.1)
    assert "could not be counted in the database yet" in caplog.text
    monkeypatch.setattr(tallies, "run_query", succeed)
    tally.add("a")
    tally.add("b")
    await asyncio.sleep(0.1)
    assert stored == [Counter(a=2, b=1)]


async def test_what_is_counted_apart_between_two_writes_is_bounded(monkeypatch):
    monkeypatch.setattr(tallies, "MAX_KEYS", 2)
    stored: list[Counter[str]] = []
    tally: Tally[str] = Tally(stored.append)

    async def succeed(store, counts) -> None:
        store(counts)

    monkeypatch.setattr(tallies, "run_query", succeed)
    for key in "abcab":
        tally.add(key)
    await tally.write()
    assert stored == [Counter(a=2, b=2)]


@pytest.mark.django_db
def test_counts_are_deleted_after_a_week(device_key):
    for age in (timedelta(), KEPT_FOR + timedelta(minutes=1)):
        tallies._store_latencies(Counter({(MINUTE - age, 5): 1}))
        tallies._store_refusals(
            Counter({(MINUTE - age, device_key.device_id, device_key.device.tenant_id, "overloaded"): 1})
        )
    call_command("maintain")
    assert [row.minute for row in LatencyCount.objects.all()] == [MINUTE]
    assert [row.minute for row in RefusalCount.objects.all()] == [MINUTE]
