"""Alerts that are the same to an analyst are one group, whoever sends them and however often."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.db import connection

from alerts.fingerprint import fingerprint
from alerts.models import AlertGroup, SecurityAlert, Status
from alerts.order import ORDER_LOCK
from devices.models import DeviceKey
from ingest.checking import check_batch
from ingest.models import IngestBatch, IngestEvent
from ingest.storing.store import repair_sequences, store_batches
from tests.support.alert_rows import set_status
from tests.support.events import alert, log
from tests.support.servers import servers_only

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 6, 6, 12, tzinfo=UTC)
SCAN = {"title": "Port scan", "source_ip": "192.0.2.7", "destination_ip": "10.0.0.1"}


def batch_of(key: DeviceKey, *events: dict, at: datetime = NOW, name: str | None = None):
    loaded = DeviceKey.objects.select_related("device__tenant").get(pk=key.pk)
    batch = check_batch(json.dumps(events).encode(), loaded, "10.0.0.7", at)
    batch.idempotency_key = name or str(IngestBatch.objects.count())
    return batch


def store(key: DeviceKey, *events: dict, **fields):
    """Store one batch and return its alerts."""
    return store_batches([batch_of(key, *events, **fields)]).alerts


def close(group: AlertGroup) -> None:
    set_status(AlertGroup.objects.filter(pk=group.pk), Status.CLOSED)


def test_a_thousand_repeats_are_one_group(device_key):
    alerts = [alert(**SCAN) for _ in range(100)]
    for number in range(10):
        store(device_key, log(), *alerts, at=NOW + timedelta(minutes=number))
    group = AlertGroup.objects.get()
    assert (group.count, group.status, group.severity) == (1000, Status.NEW, "high")
    assert (group.title, group.source_ip, group.destination_ip) == tuple(SCAN.values())
    assert (group.device_id, group.previous_id) == (None, None)
    assert (group.first_seen_at, group.last_seen_at) == (NOW, NOW + timedelta(minutes=9))
    assert group.last_alert_id == SecurityAlert.objects.newest_id()
    assert SecurityAlert.objects.filter(group=group, tenant=group.tenant).count() == 1000


def test_the_batches_of_a_transaction_write_each_group_once(make_key, tenant):
    keys = [make_key(tenant)[0] for _ in range(3)]
    other = {**SCAN, "destination_ip": "10.0.0.2"}
    batches = [batch_of(key, alert(**SCAN), log(), alert(**other), alert(**SCAN)) for key in keys]
    store_batches(batches)
    first, second = AlertGroup.objects.order_by("destination_ip")
    assert (first.count, second.count) == (6, 3)
    assert abs(first.revision - second.revision) == 1
    for stored in SecurityAlert.objects.all():
        assert stored.group == {"10.0.0.1": first, "10.0.0.2": second}[stored.destination_ip]


def test_other_tenants_and_other_devices_without_an_address_have_their_own(make_key, make_tenant):
    one, other = make_tenant(), make_tenant()
    keys = [make_key(one)[0], make_key(one)[0], make_key(other)[0]]
    store_batches([batch_of(key, alert(**SCAN), alert("Disk full"), alert("Disk full")) for key in keys])
    found = AlertGroup.objects.order_by("tenant", "title", "device")
    assert list(found.values_list("tenant", "title", "device", "count")) == [
        (one.pk, "Disk full", keys[0].device_id, 2),
        (one.pk, "Disk full", keys[1].device_id, 2),
        (one.pk, "Port scan", None, 2),
        (other.pk, "Disk full", keys[2].device_id, 2),
        (other.pk, "Port scan", None, 1),
    ]


def test_the_severity_is_the_worst_so_far(device_key):
    for severities, worst in ((["low"], "low"), (["info", "critical", "medium"], "critical"), (["high"], "critical")):
        store(device_key, *(alert(**SCAN, severity=severity) for severity in severities))
        assert AlertGroup.objects.get().severity == worst


def test_an_alert_after_the_closing_begins_a_new_group(device_key):
    groups = []
    for _ in range(3):
        store(device_key, alert(**SCAN))
        [stored] = store(device_key, alert(**SCAN))
        assert stored.group_status == Status.NEW
        groups.append(AlertGroup.objects.latest("pk"))
        close(groups[-1])
    assert [group.previous for group in groups] == [None, *groups[:2]]
    assert [group.count for group in groups] == [2, 2, 2]
    assert AlertGroup.objects.count() == 3


@pytest.mark.parametrize(
    ("before", "silence", "after"),
    [
        (Status.ACKNOWLEDGED, timedelta(hours=23), Status.ACKNOWLEDGED),
        (Status.ACKNOWLEDGED, timedelta(hours=25), Status.NEW),
        (Status.IN_PROGRESS, timedelta(hours=25), Status.IN_PROGRESS),
    ],
)
def test_an_acknowledged_group_is_new_again_after_a_silent_day(device_key, before, silence, after):
    store(device_key, alert(**SCAN))
    set_status(AlertGroup.objects.all(), before)
    [stored] = store(device_key, alert(**SCAN), at=NOW + silence)
    group = AlertGroup.objects.get()
    assert (group.status, stored.group_status, group.count) == (after, after, 2)


def test_a_repeat_of_a_batch_adds_nothing(device_key):
    batch = batch_of(device_key, alert(**SCAN), alert("Disk full"), name="a")
    store_batches([batch, batch])
    before = list(AlertGroup.objects.values())
    store_batches([batch])
    assert list(AlertGroup.objects.values()) == before
    assert [row["count"] for row in before] == [1, 1]


def test_each_change_takes_the_next_revision(device_key):
    def newest() -> int:
        return AlertGroup.objects.latest("revision").revision

    store(device_key, alert(**SCAN))
    first = newest()
    store(device_key, *(alert(**SCAN) for _ in range(5)))
    store(device_key, log())
    close(AlertGroup.objects.get())
    close(AlertGroup.objects.get())  # which changes nothing
    store(device_key, alert(**SCAN), alert("Disk full"))
    assert newest() == first + 4


def test_ids_of_groups_have_no_gaps_for_repeats(device_key):
    """The admin looks back by ids: with gaps it would find little."""
    for number in range(10):
        store(device_key, alert(**SCAN), at=NOW + timedelta(seconds=number))
    store(device_key, alert("Disk full"))
    first, second = AlertGroup.objects.order_by("pk")
    assert second.pk == first.pk + 1


def test_addresses_are_compared_by_value_and_parts_do_not_run_together():
    assert fingerprint("a", "2001:db8::1", None, 1) == fingerprint("a", "2001:0DB8:0:0::1", None, 2)
    others = [("a", None, "2001:db8::1", 1), ("a", None, None, 1), ("a", None, None, 2), ("b", None, None, 1)]
    assert len({fingerprint(*parts) for parts in others}) == len(others)


@servers_only
def test_readers_of_all_after_a_revision_miss_nothing_while_sixteen_devices_send_the_same(make_key, tenant):
    keys = [make_key(tenant)[0] for _ in range(16)]
    titles = [f"Port scan {number}" for number in range(3)]
    batches = {
        key.pk: [
            batch_of(key, *(alert(**SCAN | {"title": titles[n % 3]}) for n in range(m, m + 4)), name=f"{m}")
            for m in range(20)
        ]
        for key in keys
    }
    seen: dict[int, int] = {}
    stopped = threading.Event()

    def read(last: int = 0) -> None:
        while True:
            is_last = stopped.is_set()
            for pk, count, revision in AlertGroup.objects.filter(revision__gt=last).values_list(
                "pk", "count", "revision"
            ):
                seen[pk], last = count, max(last, revision)
            if is_last:
                return connection.close()

    def send(key: DeviceKey) -> None:
        for batch in batches[key.pk]:
            assert not store_batches([batch]).refused
        connection.close()

    with ThreadPoolExecutor(17) as pool:
        reader = pool.submit(read)
        list(pool.map(send, keys))
        stopped.set()
        reader.result()
    assert seen == dict(AlertGroup.objects.values_list("pk", "count"))
    assert sum(seen.values()) == SecurityAlert.objects.count() == 16 * 20 * 4
    for group in AlertGroup.objects.all():
        assert SecurityAlert.objects.filter(group=group).count() == group.count
        assert group.last_alert_id == SecurityAlert.objects.filter(group=group).newest_id()


@servers_only
def test_a_group_that_is_closed_while_a_batch_waits_for_its_turn_is_the_one_before(server, key):
    """The statement sees the groups as they were when it began to wait."""
    scan = alert(**SCAN)
    assert server.post(key, [scan]).status_code == 204
    group = AlertGroup.objects.get()
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": psycopg.Cursor}) as other:
            other.execute("SELECT pg_advisory_xact_lock(%s)", [ORDER_LOCK])
            answer = pool.submit(server.post, key, [log(), scan])
            with connection.cursor() as cursor:
                while not cursor.execute(waiting) or cursor.fetchone() == (0,):
                    pass
            other.execute("UPDATE alert_groups SET status = 'closed'")
        assert answer.result().status_code == 204
    begun = AlertGroup.objects.get(status=Status.NEW)
    assert (begun.previous, begun.count) == (group, 1)
    assert SecurityAlert.objects.latest("pk").group == begun
    assert (SecurityAlert.objects.count(), IngestEvent.objects.count()) == (2, 3)


@servers_only
def test_a_revision_sequence_that_was_set_back_is_set_forward(device_key):
    def set_back() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT setval('alert_groups_revision_seq', 1, false)")

    for number in range(5):
        store(device_key, alert(**SCAN), at=NOW + timedelta(seconds=number))
    last = AlertGroup.objects.get().revision
    set_back()
    store(device_key, alert(**SCAN))
    assert AlertGroup.objects.get().revision == last + 1
    set_back()
    set_status(AlertGroup.objects.all(), Status.ACKNOWLEDGED)
    assert AlertGroup.objects.get().revision == last + 2
    set_back()
    repair_sequences()
    store(device_key, alert(**SCAN))
    assert AlertGroup.objects.get().revision > last + 1000
