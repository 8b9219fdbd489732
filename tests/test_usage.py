"""Counts of what was received, by device and tenant, in minutes and hours."""

import itertools
import json
import random
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from ingest.models import IngestBatch, IngestEvent
from ingestcloud.tasks import TASKS
from insights import usage
from insights.models import COUNTS, DeviceHour, DeviceMinute, LastRun, TenantHour, TenantMinute
from insights.usage import COUNTED_AGAIN, DAY, HOUR, KEPT, MINUTE, count, count_latest, periods, recount_latest
from insights.worker import run_if_due
from tests.support.events import EXAMPLES, alert, log
from tests.support.servers import servers_only

numbers = itertools.count(1)
NOW = datetime(2026, 11, 27, 14, 20, 30, tzinfo=UTC)
TABLES = (DeviceMinute, DeviceHour, TenantMinute, TenantHour)


def floor(moment: datetime, period: timedelta) -> datetime:
    return moment - (moment - datetime.min.replace(tzinfo=UTC)) % period


@pytest.fixture
def batch(device_key):
    """Stores the row of a batch of two log lines, as received some time before NOW."""

    def store(age: timedelta, key=device_key, **fields) -> IngestBatch:
        counts = {"event_count": 2, "alert_count": 0, "log_count": 2, "byte_count": 100} | fields
        owner = {"device": key.device, "tenant": key.device.tenant}
        return IngestBatch.objects.create(digest=next(numbers).to_bytes(32), received_at=NOW - age, **owner, **counts)

    return store


@pytest.fixture
def now(monkeypatch):
    """Sets the clock of the counting to NOW, or to some time after it."""

    def set_to(after: timedelta = timedelta()) -> None:
        monkeypatch.setattr(usage.timezone, "now", lambda: NOW + after)

    set_to()
    return set_to


def counted(model: Any, name: str = "events") -> dict[datetime, int]:
    """What all of a table's rows together count, by the start of the period."""
    return dict(model.objects.values("start").annotate(sum=Sum(name)).values_list("start", "sum"))


def recounted(model: Any) -> dict[tuple[int, datetime], dict[str, int]]:
    """What a table should have, counted from the events themselves and the bytes of their batches."""
    period = MINUTE if model in (DeviceMinute, TenantMinute) else HOUR
    owner = "device_id" if model in (DeviceMinute, DeviceHour) else "tenant_id"
    found: dict[tuple[int, datetime], Counter[str]] = {}
    for event in IngestEvent.objects.all():
        row = found.setdefault((getattr(event, owner), floor(event.received_at, period)), Counter())
        row["events"] += 1
        row[event.kind] += 1
    for each in IngestBatch.objects.all():
        row = found[getattr(each, owner), floor(each.received_at, period)]
        row["batches"] += 1
        row["bytes"] += each.byte_count
    return {key: {name: row[name] for name in COUNTS} for key, row in found.items()}


def stored(model: Any) -> dict[tuple[int, datetime], dict[str, int]]:
    owner = "device_id" if model in (DeviceMinute, DeviceHour) else "tenant_id"
    return {(row[owner], row["start"]): {name: row[name] for name in COUNTS} for row in model.objects.values()}


def test_batches_of_all_kinds_are_counted_as_their_events_are(server, make_key, tenant):
    """Sent as devices send them: the counts of a batch come from the way by which it is stored."""
    keys = [make_key(tenant)[1], make_key(tenant)[1], make_key()[1]]
    examples = [json.loads(text) for text in EXAMPLES.values()]
    for key in keys[:2]:
        assert server.post(key, [*examples, log(), log(), alert()]).status_code == 204
        assert server.post(key, [log(colour="blue")]).status_code == 204
    assert server.post(keys[2], [alert(), alert()]).status_code == 204
    IngestBatch.objects.update(received_at=timezone.now())  # so that all are of the same minute as their events
    IngestEvent.objects.update(received_at=IngestBatch.objects.values_list("received_at", flat=True)[0])
    count_latest()
    for model in TABLES:
        assert stored(model) == recounted(model)
    assert TenantHour.objects.get(tenant=tenant).backup_event == 2


@pytest.mark.django_db
def test_minutes_add_up_to_hours_and_devices_to_their_tenant(batch, make_key, tenant, now):
    other, foreign = make_key(tenant)[0], make_key()[0]
    for key in (None, other, foreign):
        for minutes in (0, 1, 5, 5, 30, 70):
            batch(minutes * MINUTE, **({"key": key} if key else {}))
    count_latest()
    minute, hour = floor(NOW, MINUTE), floor(NOW, HOUR)
    ages = {0: 6, 1: 6, 5: 12, 30: 6, 70: 6}
    assert counted(DeviceMinute) == counted(TenantMinute) == {minute - age * MINUTE: n for age, n in ages.items()}
    assert counted(DeviceHour) == counted(TenantHour) == {hour: 24, hour - HOUR: 12}
    assert TenantHour.objects.get(tenant=tenant, start=hour).events == 16


@pytest.mark.django_db
def test_counting_again_writes_nothing(batch, now):
    batch(MINUTE)
    count_latest()
    before = _places()
    count_latest()
    recount_latest()
    assert _places() == before


def _places() -> list[Any]:
    """Where the rows lie: a row that is written again lies elsewhere. SQLite does not say."""
    if connection.vendor != "postgresql":
        return [list(model.objects.values()) for model in TABLES]
    with connection.cursor() as cursor:
        places = []
        for model in TABLES:
            cursor.execute(f"SELECT ctid, xmin FROM {model._meta.db_table}")
            places.append(cursor.fetchall())
        return places


@pytest.mark.django_db
def test_a_batch_that_is_stored_late_is_counted_by_the_next_count_or_the_recount(batch, now):
    ran_at(NOW)
    batch(COUNTED_AGAIN - MINUTE)
    count_latest()
    assert sum(counted(TenantHour).values()) == 2
    batch(3 * HOUR)  # its server was stopped before it could store it
    count_latest()
    assert sum(counted(TenantHour).values()) == 2
    recount_latest()
    assert sum(counted(TenantHour).values()) == 4


def ran_at(moment: datetime) -> None:
    LastRun.objects.update_or_create(task="usage", defaults={"succeeded_at": moment - timedelta(seconds=60)})


@pytest.mark.django_db
@pytest.mark.parametrize("pause", [20 * MINUTE, HOUR, 5 * HOUR, 30 * HOUR])
def test_what_came_while_nobody_counted_is_made_good(batch, now, pause):
    """Also if the minutes of an hour that began before the pause are no longer kept."""
    now(-pause)
    batch(pause + MINUTE)
    count_latest()
    ran_at(NOW - pause)
    usage.delete_before(DeviceMinute, NOW - KEPT[DeviceMinute])
    now()
    batch(pause - MINUTE)
    batch(pause / 2)
    batch(MINUTE)
    count_latest()
    hours = Counter[datetime]()
    for age in (pause + MINUTE, pause - MINUTE, pause / 2, MINUTE):
        hours[floor(NOW - age, HOUR)] += 2
    assert counted(DeviceHour) == counted(TenantHour) == hours


@pytest.mark.django_db
def test_at_first_what_was_stored_before_is_counted_as_far_as_the_overview_looks_back(batch, now):
    for days in (1, 6, 8):
        batch(days * DAY, log_count=None)  # from before kinds were counted
    count_latest()
    assert sum(counted(TenantHour).values()) == 4
    assert sum(counted(TenantHour, "log").values()) == 0


@pytest.mark.django_db
def test_a_batch_from_a_server_whose_clock_is_ahead_is_counted(batch, now):
    batch(-5 * MINUTE)
    batch(-2 * HOUR)
    count_latest()
    assert counted(TenantHour) == {floor(NOW, HOUR): 2, floor(NOW + 2 * HOUR, HOUR): 2}


@pytest.mark.django_db
def test_a_clock_that_was_set_back_does_not_make_minutes_smaller(batch, now):
    """Two batches of the same minute may have ids far apart, with later minutes in between."""
    batch(2 * MINUTE)
    for minutes in range(-60, 0):
        batch(minutes * MINUTE)
    now(HOUR)
    count_latest()
    now()  # an hour back
    batch(2 * MINUTE)
    count_latest()
    assert counted(TenantMinute)[floor(NOW - 2 * MINUTE, MINUTE)] == 4


@pytest.mark.django_db
def test_each_count_is_kept_for_its_time(batch, now, monkeypatch):
    monkeypatch.setattr(usage, "STEP_ROWS", 3)
    for hours in range(1, 60):
        batch(hours * HOUR)
    count_latest()
    recount_latest()
    for model in (DeviceMinute, TenantMinute):
        assert min(counted(model)) >= floor(NOW, MINUTE) - KEPT[model]
    assert len(counted(TenantMinute)) == 47
    assert len(counted(DeviceHour)) == 59


def test_no_hour_is_left_out_or_counted_twice():
    since = NOW - 30 * HOUR
    found = list(periods(since, NOW))
    assert found[0][0] == floor(since, HOUR)
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(found))
    assert found[-1] == (floor(NOW, HOUR), None)
    assert list(periods(NOW - 5 * MINUTE, NOW)) == [(floor(NOW - 5 * MINUTE, MINUTE), None)]


@servers_only
@pytest.mark.django_db(transaction=True)
def test_two_that_count_at_the_same_time_do_not_disturb_each_other(batch, make_key, now):
    keys = [make_key()[0] for _ in range(20)]
    errors = []

    def count_often() -> None:
        try:
            for minutes in range(10):
                for key in random.sample(keys, len(keys)):
                    batch(minutes * MINUTE, key)
                count(NOW - HOUR)
        except Exception as error:  # noqa: BLE001
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=count_often) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count(NOW - HOUR)
    assert not errors
    assert sum(counted(DeviceMinute).values()) == 3 * 10 * 20 * 2


@pytest.mark.django_db
def test_the_worker_counts(batch, now):
    batch(MINUTE)
    for task in TASKS:
        if task.name.startswith("usage"):
            assert run_if_due(task)
    assert not LastRun.objects.exclude(error="").exists()
    assert counted(TenantHour)


@pytest.mark.django_db
def test_all_of_it_can_be_counted_again_by_a_command(batch):
    batch(NOW - timezone.now() + 29 * DAY)
    batch(NOW - timezone.now() + MINUTE)
    count_latest()
    right = [counted(model) for model in TABLES]
    for model in TABLES:
        model.objects.update(events=7)
    call_command("rebuild_insights", stdout=StringIO())
    assert sum(counted(TenantHour).values()) == 4
    assert counted(DeviceMinute).items() >= right[0].items()
