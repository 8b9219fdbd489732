"""Events and batches in the admin."""

import re
from datetime import timedelta

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from alerts.models import AlertGroup, SecurityAlert
from devices.models import Device, DeviceKey
from ingest.models import IngestBatch, IngestEvent
from tenants.admin import bounded
from tenants.models import Tenant
from tests.support.admin_pages import link, list_of, page_of, rows_shown
from tests.support.servers import servers_only

pytestmark = pytest.mark.django_db

HOSTILE = {"message": "</pre><script>alert('x')</script>", "city": "Zürich"}


def test_events_and_batches_are_read_only(admin_client, store):
    event = store()[0]
    for row in (event, event.batch):
        assert admin_client.get(list_of(row).rstrip("/") + "/add/").status_code == 403
        assert admin_client.post(page_of(row), {"kind": "telemetry"}).status_code == 403
        assert admin_client.post(page_of(row).replace("/change/", "/delete/"), {"post": "yes"}).status_code == 403
    admin_client.post(list_of(event), {"action": "delete_selected", "_selected_action": [event.pk], "post": "yes"})
    assert IngestEvent.objects.values_list("kind", flat=True).get() == "log"


def test_hostile_data_is_escaped_on_every_page(admin_client, store, make_alert):
    event = store(data=HOSTILE)[0]
    alert = make_alert(title=HOSTILE["message"], description=HOSTILE["message"])
    for address in (page_of(event), list_of(event), page_of(alert), list_of(alert)):
        text = admin_client.get(address).text
        assert "<script>alert" not in text
        assert "&lt;/pre&gt;&lt;script&gt;alert" in text


def test_the_page_of_an_event_shows_readable_data(admin_client, store):
    assert "Zürich" in admin_client.get(page_of(store(data=HOSTILE)[0])).text


@servers_only
def test_of_two_events_with_the_same_id_the_page_shows_the_newer(admin_client, store):
    """The primary key includes the time, so a sequence that was set back may cause this."""
    old = store(data={"message": "old"}, received_at=timezone.now() - timedelta(days=1))[0]
    new = store(data={"message": "new one"})[0]
    IngestEvent.objects.filter(pk=new.pk).update(id=old.pk)
    assert "new one" in admin_client.get(page_of(old)).text


def test_a_list_reads_only_the_start_of_the_data(admin_client, store):
    store(data={"message": "x" * 5000 + "the end"})
    text = admin_client.get(list_of(IngestEvent)).text
    assert "xxx" in text
    assert "the end" not in text


def test_rows_whose_device_and_tenant_are_gone_are_still_shown(admin_client, store, make_alert):
    event, alert = store()[0], make_alert()
    for rows in (IngestEvent.objects, IngestBatch.objects, SecurityAlert.objects):
        rows.update(device=987654, tenant=876543)
    IngestEvent.objects.update(batch=765432)
    for row in (event, event.batch, alert):
        for address in (list_of(row), page_of(row)):
            response = admin_client.get(address)
            assert response.status_code == 200
            assert "#987654 (gone)" in response.text
            assert "#876543 (gone)" in response.text


def test_the_page_of_a_batch_links_to_its_events(admin_client, store):
    store(3)
    events = store(4)
    store(2)
    link = re.search(r'href="([^"]+\?batch=\d+)"', admin_client.get(page_of(events[0].batch)).text)[1]
    assert rows_shown(admin_client.get(link)) == [event.pk for event in reversed(events)]


def test_the_page_of_a_batch_names_it_as_its_device_did(admin_client, store):
    """A device whose name for a batch belongs to another body is answered 422: staff need to see which batch has it."""
    batch = store()[0].batch
    IngestBatch.objects.filter(pk=batch.pk).update(idempotency_key="2026-w22/press 7")
    assert "2026-w22/press 7" in admin_client.get(page_of(batch)).text


def test_the_events_of_an_old_batch_can_be_found(admin_client, store, monkeypatch):
    monkeypatch.setattr(bounded, "MAX_SEARCHED_ROWS", 20)
    batches = [store(7)[0].batch for _ in range(30)]
    for batch in batches[::7]:
        assert len(rows_shown(admin_client.get(list_of(IngestEvent), {"batch": batch.pk}))) == 7


def test_batches_can_be_found_by_the_time_they_were_received(admin_client, store, monkeypatch):
    start = timezone.now().replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=40)
    days = [store(received_at=start + timedelta(days=day))[0].batch_id for day in range(20)]
    monkeypatch.setattr(bounded, "MAX_SEARCHED_ROWS", 10)
    wanted = {
        "received_at_from_0": f"{start + timedelta(days=3):%Y-%m-%d}",
        "received_at_to_0": f"{start + timedelta(days=5):%Y-%m-%d}",
    }
    assert rows_shown(admin_client.get(list_of(IngestBatch), wanted)) == days[5:2:-1]
    wanted["received_at_from_1"] = "12:30:00"
    assert rows_shown(admin_client.get(list_of(IngestBatch), wanted)) == days[5:3:-1]


@pytest.mark.parametrize(
    "query",
    [
        {"around": "2026-02-31 10:00"},
        {"since": "9999-12-31", "until": "x"},
        {"until": "0001-01-01"},
        {"around": "14:05", "clock": "x"},
        {"before": "x"},
        {"after": "1,2,3"},
        {"before": "9" * 30},
        {"q": "\\"},
        {"q": "fe80::/10"},
        {"q": "a\0b"},
        {"device__id__exact": "9" * 18},
        {"batch": "x"},
        {"batch": "9" * 30},
        {"batch": "-1"},
        {"kind__exact": "x"},
        {"o": "1.-3.2"},
        {"p": "x"},
        {"_facets": "True"},
    ],
)
def test_nonsense_in_the_query_string_does_not_crash_the_list(admin_client, store, query):
    store()
    assert admin_client.get(list_of(IngestEvent), query, follow=True).status_code == 200


def test_a_filter_searches_only_the_newest_rows_and_says_so(admin_client, store, monkeypatch):
    monkeypatch.setattr(bounded, "MAX_SEARCHED_ROWS", 5)
    old, new = store(3, kind="telemetry"), store(5)
    response = admin_client.get(list_of(IngestEvent), {"kind__exact": "telemetry"})
    assert rows_shown(response) == []
    assert "Only the newest rows were searched, back to" in response.text
    response = admin_client.get(list_of(IngestEvent), {"kind__exact": "log"})
    assert rows_shown(response) == [event.pk for event in reversed(new)]
    assert old[0].pk not in rows_shown(response)


@pytest.mark.parametrize("model", [IngestEvent, IngestBatch, SecurityAlert, AlertGroup])
@pytest.mark.parametrize("query", [{}, {"tenant__id__exact": "1"}, {"o": "2"}, {"_facets": "True"}])
def test_nothing_is_counted_or_sorted_without_a_bound(admin_client, store, make_alert, model, query):
    store(2)
    make_alert()
    with CaptureQueriesContext(connection) as queries:
        assert admin_client.get(list_of(model), query).status_code == 200
    table = model._meta.db_table
    asked = [query["sql"] for query in queries if f'FROM "{table}"' in query["sql"]]
    assert asked
    for sql in asked:
        assert re.search(rf'ORDER BY ("{table}"."id"|1) (ASC|DESC)', sql), sql
        assert " LIMIT " in sql, sql
        assert "COUNT(" not in sql, sql


@pytest.mark.parametrize("model", [IngestEvent, IngestBatch, SecurityAlert, AlertGroup])
def test_pages_lead_to_the_older_rows_and_back(admin_client, store, make_alert, monkeypatch, model):
    monkeypatch.setattr(admin.site.get_model_admin(model), "list_per_page", 3)
    for _ in range(8):
        store()
        make_alert()
    rows = list(model.objects.order_by("-pk").values_list("pk", flat=True))
    pages = [admin_client.get(list_of(model))]
    assert link(pages[0], "Newer") is None
    while older := link(pages[-1], "Older"):
        pages.append(admin_client.get(older))
    assert [rows_shown(page) for page in pages] == [rows[:3], rows[3:6], rows[6:]]
    back = admin_client.get(link(pages[-1], "Newer"))
    assert rows_shown(back) == rows[3:6]
    first = admin_client.get(link(back, "Newer"))
    assert rows_shown(first) == rows[:3]
    assert link(first, "Older")


def test_the_newest_rows_fill_a_page_however_one_gets_there(admin_client, store, monkeypatch):
    monkeypatch.setattr(admin.site.get_model_admin(IngestEvent), "list_per_page", 3)
    events = [event.pk for event in reversed(store(8))]
    response = admin_client.get(list_of(IngestEvent), {"after": events[1]})
    assert rows_shown(response) == events[:3]
    assert link(response, "Newer") is None


def test_a_search_goes_on_with_the_rows_that_it_left_out(admin_client, store, monkeypatch):
    monkeypatch.setattr(bounded, "MAX_SEARCHED_ROWS", 5)
    old = store(3, kind="telemetry")
    store(7)
    response = admin_client.get(list_of(IngestEvent), {"kind__exact": "telemetry"})
    assert rows_shown(response) == []
    response = admin_client.get(link(response, "Search older"))
    assert rows_shown(response) == [event.pk for event in reversed(old)]


@pytest.mark.parametrize("model", [IngestEvent, IngestBatch, SecurityAlert, AlertGroup, Device, DeviceKey, Tenant])
def test_a_list_makes_no_more_queries_for_more_rows(
    admin_client, model, store, make_alert, make_key, django_assert_max_num_queries
):
    def add():
        store()
        make_alert(tenant=make_key()[0].device.tenant)

    add()
    with CaptureQueriesContext(connection) as few:
        admin_client.get(list_of(model))
    for _ in range(10):
        add()
    with django_assert_max_num_queries(len(few)):
        assert len(rows_shown(admin_client.get(list_of(model)))) > 10
