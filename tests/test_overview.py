"""The charts and tables on the front page of the admin: they show what was counted, for whom, and nothing else."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from devices.models import Device
from ingest.models import Kind, LatencyCount, RefusalCount
from ingestcloud.overview.charts import percentile
from ingestcloud.tasks import TASKS
from insights.models import COUNTS, LastRun, TenantHour, TenantMinute
from tests.support.side import Side

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 27, 14, 30, 30, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture(autouse=True)
def clock():
    with time_machine.travel(NOW, tick=False):
        yield


def counted(model: type, tenant, start: datetime, **counts: int) -> None:
    counts["events"] = sum(counts.get(kind, 0) for kind in Kind.values)
    model.objects.create(tenant=tenant, start=start, **(dict.fromkeys(COUNTS, 0) | counts))


def overview(client: Client, period: str = "24h"):
    return client.get(reverse("admin:index"), {"period": period})


def chart(response, title: str) -> tuple[list[str], dict[str, list[float]], dict[str, str]]:
    """Its labels, its lines, and its totals."""
    [found] = [each for each in response.context["charts"] if each.title.startswith(title)]
    data = json.loads(found.data)
    return data["labels"], {line["label"]: line["data"] for line in data["datasets"]}, found.totals


def table(response, title: str) -> list[list[str]]:
    [found] = [each for each in response.context["tables"] if each.title.startswith(title)]
    return [[str(cell) for cell in row] for row in found.rows]


def test_events_of_an_hour_are_shown_by_the_minute_and_kind(admin_client, tenant):
    counted(TenantMinute, tenant, NOW.replace(minute=29, second=0), telemetry=7, log=3)
    counted(TenantMinute, tenant, NOW.replace(hour=13, minute=31, second=0), discovery=2)
    counted(TenantMinute, tenant, NOW.replace(hour=13, minute=30, second=0), telemetry=99)
    labels, lines, totals = chart(overview(admin_client, "1h"), "Events a minute")
    assert (len(labels), labels[0], labels[-1]) == (60, "13:31", "14:30")
    assert (lines["Telemetry"][-2], lines["Log"][-2], lines["Discovery"][0]) == (7, 3, 2)
    assert totals == {"Telemetry": "7", "Log": "3", "Security Alert": "0", "Discovery": "2", "Backup Event": "0"}


@pytest.mark.parametrize(("period", "steps"), [("24h", 24), ("7d", 168)])
def test_events_of_days_are_shown_by_the_hour_as_events_a_minute(admin_client, tenant, period, steps):
    counted(TenantHour, tenant, NOW.replace(hour=13, minute=0, second=0), log=6000)
    counted(TenantHour, tenant, NOW.replace(minute=0, second=0), log=305)  # this hour, of which half has passed
    labels, lines, totals = chart(overview(admin_client, period), "Events a minute")
    assert len(labels) == steps
    assert lines["Log"][-2:] == [100, 10]
    assert totals["Log"] == "6,305"


def test_the_most_frequent_reasons_of_refusals_are_told_apart(admin_client, device_key):
    owner = {"tenant": device_key.device.tenant, "device": device_key.device, "minute": NOW.replace(second=0)}
    for number in range(1, 9):
        RefusalCount.objects.create(code=f"reason_{number}", requests=number, **owner)
    _, lines, totals = chart(overview(admin_client, "1h"), "Refused batches")
    assert totals == {
        "reason_8": "8", "reason_7": "7", "reason_6": "6", "reason_5": "5", "reason_4": "4", "others": "6",
    }  # fmt: skip
    assert lines["others"][-1] == 6


def test_latency_is_the_class_that_has_the_median_and_the_99th_percentile(admin_client):
    for milliseconds, requests in {2: 60, 50: 38, 1000: 2}.items():
        LatencyCount.objects.create(minute=NOW.replace(second=0), milliseconds=milliseconds, requests=requests)
    _, lines, totals = chart(overview(admin_client, "1h"), "Milliseconds")
    assert (lines["median"][-1], lines["99th percentile"][-1]) == (2, 1000)
    assert totals == {"median": "up to 2 ms", "99th percentile": "up to 1,000 ms"}
    assert percentile({}, 0.5) is None


def test_tenants_that_sent_most_come_first(admin_client, make_tenant):
    for number in range(10):
        tenant = make_tenant(slug=f"tenant-{number}", name=f"Tenant {number}")
        counted(TenantHour, tenant, NOW.replace(minute=0, second=0), log=number, bytes=1024 * number)
    rows = table(overview(admin_client), "Tenants that sent most")
    assert len(rows) == 8
    assert "Tenant 9" in rows[0][0]
    assert rows[0][1:] == ["9", "9.0\xa0KB"]


def test_superusers_see_which_tasks_are_late_or_have_failed(admin_client):
    LastRun.objects.create(task="usage", started_at=NOW, succeeded_at=NOW, took=timedelta(seconds=1.5))
    LastRun.objects.create(task="maintain", started_at=NOW, succeeded_at=NOW - HOUR, error="ValueError: out of paper")
    rows = {row[0]: row for row in table(overview(admin_client), "Periodic tasks")}
    assert set(rows) == {task.name for task in TASKS}
    assert "fine" in rows["usage"][1]
    assert rows["usage"][3] == "1.5 s"
    assert "failed" in rows["maintain"][1]
    assert rows["maintain"][4] == "ValueError: out of paper"
    assert "late" in rows["exports"][1]


def test_staff_see_the_counts_of_their_tenants_and_nothing_of_the_site():
    ours, theirs = Side("ours"), Side("theirs")
    client = ours.client()
    counted(TenantHour, theirs.tenant, NOW.replace(minute=0, second=0), log=500)
    counted(TenantHour, ours.tenant, NOW.replace(minute=0, second=0) - HOUR, log=3)
    LatencyCount.objects.create(minute=NOW.replace(second=0), milliseconds=2, requests=1)
    response = overview(client)
    assert chart(response, "Events a minute")[2]["Log"] == "3"
    assert chart(response, "Refused batches")[2] == {"ours-code": "1"}
    assert [each.title.split()[0] for each in response.context["charts"]] == ["Events", "Refused"]
    assert [each.title.split()[0] for each in response.context["tables"]] == ["Newest", "Tenants"]
    assert "theirs" not in response.text


@pytest.mark.parametrize("period", ["", "x", "1h\x00", "9" * 5000])
def test_a_period_that_there_is_not_is_a_day(admin_client, period):
    assert overview(admin_client, period).context["period"].key == "24h"


def test_an_empty_site_has_charts_without_lines(admin_client):
    response = overview(admin_client)
    assert chart(response, "Refused batches")[1] == {}
    assert "None in 24 hours." in response.text


def test_more_devices_and_tenants_take_no_more_queries(admin_client, make_tenant, django_assert_max_num_queries):
    def grow(count: int, prefix: str) -> None:
        for number in range(count):
            tenant = make_tenant(slug=f"{prefix}-{number}", name=f"{prefix} {number}")
            Device.objects.create(tenant=tenant, name="press")
            counted(TenantHour, tenant, NOW.replace(minute=0, second=0), log=1)

    grow(1, "a")
    with CaptureQueriesContext(connection) as queries:
        overview(admin_client)
    count = len(queries)
    grow(6, "b")
    with django_assert_max_num_queries(count):
        overview(admin_client)
