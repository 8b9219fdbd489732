"""Partitions and retention: `manage.py maintain`."""

import os
import subprocess
import sys
import threading
from datetime import timedelta
from io import StringIO
from uuid import uuid4

import httpx
import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from alerts.models import AlertGroup, GroupChange, SecurityAlert, Status
from alerts.order import next_revisions
from ingest import partitions, retention
from ingest.models import IngestBatch, IngestEvent
from tenants.models import Tenant
from tests.support.alert_rows import alert_row, suppression_rule
from tests.support.events import log
from tests.support.live import ROOT, test_database_url
from tests.support.plans import rows_read_of
from tests.support.servers import servers_only

NOW = timezone.now()
DAY = timedelta(days=1)
WEEK = timedelta(weeks=1)


def maintain() -> str:
    out = StringIO()
    call_command("maintain", stdout=out, stderr=out)
    return out.getvalue()


def partition_of(event: IngestEvent) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM ingest_events WHERE id = %s", [event.pk])
        return cursor.fetchone()[0]


@pytest.fixture
def store_event(device_key):
    def store(age: timedelta, key=device_key) -> IngestEvent:
        fields = {"tenant": key.device.tenant, "device": key.device, "received_at": NOW - age}
        return IngestEvent.objects.create(batch_id=1, kind="log", timestamp=NOW, data={"message": "x"}, **fields)

    return store


@pytest.fixture
def old_partitions(db):
    """Partitions for the twenty weeks before this one."""
    first = partitions.week_of(NOW)
    yield [partitions.make(first - n * WEEK) for n in range(1, 21)]
    for partition in partitions.partitions():  # what one test commits, the next would see
        if not first <= partition.start <= first + 4 * WEEK:
            partitions.drop(partition)


def keep_for(days: int | None, *tenants: Tenant) -> None:
    Tenant.objects.filter(pk__in=[tenant.pk for tenant in tenants]).update(retention_days=days)


@servers_only
@pytest.mark.django_db
def test_a_new_database_has_partitions_for_this_week_and_the_next_four(store_event):
    first = partitions.week_of(NOW)
    assert [(p.start, p.end) for p in partitions.partitions()] == [
        (first + n * WEEK, first + (n + 1) * WEEK) for n in range(5)
    ]
    assert partition_of(store_event(timedelta())) == f"ingest_events_{first:%Y%m%d}"


@servers_only
@pytest.mark.django_db
def test_partitions_are_made_once():
    assert partitions.make_ahead(NOW + WEEK) == [f"ingest_events_{partitions.week_of(NOW) + 5 * WEEK:%Y%m%d}"]
    assert partitions.make_ahead(NOW + WEEK) == []
    assert maintain() == ""


@servers_only
@pytest.mark.django_db
def test_maintain_says_which_partition_it_made_and_a_second_run_at_the_same_time_makes_no_other():
    newest = partitions.partitions()[-1]
    partitions.drop(newest)
    assert maintain() == f"Created partition {newest.name}.\n"
    assert partitions.make(newest.start) is None
    assert partitions.partitions()[-1] == newest


@servers_only
@pytest.mark.django_db
def test_an_event_without_a_partition_is_not_refused(store_event):
    event = store_event(-10 * WEEK)
    assert partition_of(event) == "ingest_events_default"
    assert "The default partition has events" in maintain()
    # A week that already has events in the default partition stays there; the others get their own.
    made = partitions.make_ahead(NOW + 8 * WEEK)
    assert len(made) == 4
    assert f"ingest_events_{partitions.week_of(event.received_at):%Y%m%d}" not in made
    assert IngestEvent.objects.get() == event


@pytest.mark.django_db
def test_old_events_of_one_tenant_are_deleted_but_not_those_of_another(store_event, make_key, tenant, device_key):
    other_key = make_key()[0]
    old, new = store_event(31 * DAY), store_event(29 * DAY)
    others = store_event(31 * DAY, other_key)
    keep_for(30, tenant)
    assert f"Deleted 1 event of {tenant.slug}." in maintain()
    assert set(IngestEvent.objects.all()) == {new, others}
    assert old not in IngestEvent.objects.all()
    assert "Deleted" not in maintain()


@pytest.mark.django_db
def test_many_events_are_deleted_in_small_steps(store_event, tenant, monkeypatch):
    monkeypatch.setattr("ingest.retention.STEP_ROWS", 10)
    for _ in range(35):
        store_event(2 * DAY)
    keep_for(1, tenant)
    with CaptureQueriesContext(connection) as captured:
        assert f"Deleted 35 events of {tenant.slug}." in maintain()
    assert sum(query["sql"].startswith('DELETE FROM "ingest_events"') for query in captured) == 4
    assert not IngestEvent.objects.exists()


@pytest.mark.django_db
def test_alerts_are_deleted_only_if_their_group_is_closed_and_batches_only_after_a_month(tenant, device_key):
    common = {"tenant": tenant, "device": device_key.device}
    for days in (40, 10):  # ids are in the order of arrival
        for status in Status:
            moment = {"received_at": NOW - days * DAY, "timestamp": NOW}
            alert_row(status=status, title=f"{status} {days}", severity="low", **common, **moment)
        counts = {"event_count": 1, "alert_count": 0, "byte_count": 9}
        IngestBatch.objects.create(digest=bytes([days] * 32), received_at=NOW - days * DAY, **common, **counts)
    keep_for(20, tenant)
    printed = maintain()
    assert f"Deleted 1 alert of {tenant.slug}." in printed
    assert f"Deleted 1 batch of {tenant.slug}." in printed
    titles = set(SecurityAlert.objects.values_list("title", flat=True))
    assert titles == {f"{status} {days}" for status in Status for days in (10, 40)} - {"closed 40"}
    keep_for(5, tenant)
    maintain()
    assert not SecurityAlert.objects.filter(title="closed 10").exists()
    assert IngestBatch.objects.count() == 1


@pytest.mark.django_db
def test_a_closed_group_is_deleted_with_its_last_alert_unless_it_changed_last(tenant, make_alert):
    old, young = NOW - 40 * DAY, NOW - 10 * DAY
    closed, kept, opened, newest = (
        make_alert(received_at=old, status=status).group
        for status in (Status.CLOSED, Status.CLOSED, Status.NEW, Status.CLOSED)
    )
    make_alert(received_at=young)
    SecurityAlert.objects.filter(received_at=young).update(group=kept)
    revision = next_revisions(1)[0] + 100
    AlertGroup.objects.filter(pk=newest.pk).update(revision=revision)
    keep_for(20, tenant)
    printed = maintain()
    assert f"Deleted 3 alerts of {tenant.slug}." in printed
    assert f"Deleted 1 alert group of {tenant.slug}." in printed
    assert not AlertGroup.objects.filter(pk=closed.pk).exists()
    assert {kept, opened, newest} <= set(AlertGroup.objects.all())
    assert SecurityAlert.objects.filter(group=opened).exists()
    assert next_revisions(1) == [revision + 1]


@pytest.mark.django_db
def test_suppressed_alerts_are_deleted_though_their_group_is_open_and_a_hidden_group_with_them(tenant, make_alert):
    old = NOW - 40 * DAY
    rule = suppression_rule(tenant, old, title="noise")
    hidden, seen = (make_alert(received_at=old) for _ in range(2))
    SecurityAlert.objects.filter(pk__in=[hidden.pk, seen.pk]).update(suppressed_by=rule)
    AlertGroup.objects.filter(pk=hidden.group_id).update(count=0, suppressed_count=1)
    kept = make_alert(received_at=old)
    keep_for(20, tenant)
    maintain()
    assert list(SecurityAlert.objects.all()) == [kept]
    assert set(AlertGroup.objects.all()) == {seen.group, kept.group}


@pytest.mark.django_db
def test_the_history_of_a_group_is_deleted_with_it(tenant, make_alert):
    gone, kept = (make_alert(received_at=NOW - days * DAY, status=Status.CLOSED).group for days in (40, 10))
    for group in (gone, kept):
        GroupChange.objects.create(
            tenant=tenant, group=group, operation=uuid4(), at=NOW, user_id=1, user_name="ana", field="note", after="x"
        )
    keep_for(20, tenant)
    maintain()
    assert [change.group for change in GroupChange.objects.all()] == [kept]


@servers_only
@pytest.mark.django_db
def test_a_partition_is_dropped_when_no_tenant_keeps_it(store_event, make_key, tenant, old_partitions):
    other_key = make_key()[0]
    keep_for(30, tenant)
    keep_for(60, other_key.device.tenant)
    store_event(50 * DAY), store_event(50 * DAY, other_key), store_event(100 * DAY), store_event(100 * DAY, other_key)
    printed = maintain()
    assert "Dropped partition" in printed
    assert list(IngestEvent.objects.values_list("tenant", flat=True)) == [other_key.device.tenant_id]
    assert all(p.end > NOW - 60 * DAY for p in partitions.partitions())


@servers_only
@pytest.mark.django_db
def test_a_partition_is_not_dropped_while_it_has_events_that_a_tenant_keeps_forever(
    store_event, make_key, tenant, old_partitions
):
    keep_for(30, tenant)
    kept = store_event(100 * DAY, make_key()[0])
    maintain()
    assert IngestEvent.objects.get() == kept
    # Empty partitions are gone, unless they ended less than a day ago and may still be written to.
    assert {p.start for p in partitions.partitions() if p.end <= NOW - DAY} == {partitions.week_of(kept.received_at)}


@servers_only
@pytest.mark.django_db(transaction=True)
def test_maintain_waits_only_briefly_for_a_long_query_and_does_the_rest(
    store_event, tenant, old_partitions, monkeypatch
):
    monkeypatch.setattr(partitions, "LOCK_SECONDS", 0.05)
    keep_for(30, tenant)
    store_event(31 * DAY)
    reading, done = threading.Event(), threading.Event()

    def read() -> None:
        with transaction.atomic():
            list(IngestEvent.objects.all())
            reading.set()
            done.wait(30)
        connection.close()

    thread = threading.Thread(target=read)
    thread.start()
    reading.wait(30)
    try:
        printed = maintain()
    finally:
        done.set()
        thread.join()
    assert "are left for the next run" in printed
    assert f"Deleted 1 event of {tenant.slug}." in printed
    assert "Dropped partition" in maintain()


@servers_only
@pytest.mark.django_db(transaction=True)
def test_a_cut_connection_is_not_taken_for_a_long_query():
    def end_session() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(OperationalError):
        partitions._with_lock(end_session)
    connection.close()


@servers_only
@pytest.mark.django_db(transaction=True)
def test_batches_are_accepted_while_partitions_are_made_and_dropped(server, key, tenant, old_partitions):
    keep_for(7, tenant)
    answers: list[int] = []
    headers = {"X-Device-Key": key}
    stop = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=server.url, headers=headers, timeout=30) as device:
            while not stop.is_set():
                answers.append(device.post("/v1/ingest", json=[log(number=len(answers))]).status_code)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        week = 0
        while len(answers) < 200 or week < 10:
            partitions.make_ahead(NOW + week * WEEK)
            maintain()
            week += 1
    finally:
        stop.set()
        thread.join()
    assert set(answers) == {204}
    assert IngestEvent.objects.count() == len(answers)


@servers_only
@pytest.mark.django_db(transaction=True)
def test_two_runs_at_the_same_time_do_not_disturb_each_other(old_partitions, store_event, tenant):
    keep_for(7, tenant)
    for _ in range(50):
        store_event(60 * DAY)
    command = [sys.executable, "manage.py", "maintain"]
    environment = os.environ | {"DATABASE_URL": test_database_url()}
    both = [subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[1] for process in both] == [b"", b""]
    assert [process.returncode for process in both] == [0, 0]
    assert not IngestEvent.objects.exists()


@servers_only
@pytest.mark.django_db
@pytest.mark.parametrize("model", [IngestBatch, SecurityAlert])
def test_newer_rows_are_not_read_to_find_the_old_ones(tenant, device_key, model):
    """No index leads to the old batches of a tenant: the last step would read the table to its end."""
    keep_for(30, tenant)
    tenant.refresh_from_db()
    fields = {"title": "x", "severity": "low", "timestamp": NOW}
    closed = alert_row(
        Status.CLOSED, tenant=tenant, device=device_key.device, received_at=NOW - 31 * DAY, **fields
    ).group
    rows = []
    for number in range(2_003):
        received_at = NOW - (31 if number < 3 else 29) * DAY
        common = {"tenant": tenant, "device": device_key.device, "received_at": received_at}
        if model is IngestBatch:
            numbers = {"event_count": 1, "alert_count": 0, "byte_count": 9}
            rows.append(IngestBatch(digest=number.to_bytes(32), **numbers, **common))
        else:
            rows.append(SecurityAlert(batch_id=1, group=closed, **fields, **common))
    model.objects.bulk_create(rows)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    old = model.objects.filter(received_at__lt=NOW - 30 * DAY)
    assert old.count() in {3, 4}
    with rows_read_of(model._meta.db_table) as counts:
        assert retention.delete_expired(tenant, NOW)[model] >= 3
    assert not old.exists()
    assert sum(counts) < 100


@pytest.mark.django_db
def test_batches_that_were_stored_out_of_order_are_deleted_too(tenant, device_key):
    """Batches wait for each other, so a newer one may have the lower id."""
    keep_for(30, tenant)
    tenant.refresh_from_db()
    numbers = {"event_count": 1, "alert_count": 0, "byte_count": 9}
    for number, seconds in enumerate((1, 20, -20, 1, -1)):
        moment = NOW - 30 * DAY - timedelta(seconds=seconds)
        common = {"tenant": tenant, "device": device_key.device, "received_at": moment}
        IngestBatch.objects.create(digest=bytes([number] * 32), **numbers, **common)
    assert retention.delete_expired(tenant, NOW)[IngestBatch] == 3
    assert IngestBatch.objects.count() == 2
