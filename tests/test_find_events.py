"""Finding events in the admin: of a batch, of a device, around a moment, and by what is in their data."""

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from django.contrib import admin
from django.utils import timezone

from devices.models import Device
from ingest import finding
from ingest.models import IngestBatch, IngestEvent
from ingest.moments import InvalidMomentError, parse_moment
from tenants.admin import bounded
from tests.support.admin_pages import link, list_of, page_of, rows_shown
from tests.support.side import Side

pytestmark = pytest.mark.django_db

LIST = "/admin/ingest/ingestevent/"
NOON = timezone.now().replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=3)


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(admin.site.get_model_admin(IngestEvent), "list_per_page", 3)


@pytest.fixture
def other(device_key) -> Device:
    """Another device of the same tenant."""
    return Device.objects.create(tenant=device_key.device.tenant, name="other")


def interleave(first: list[IngestEvent], second: list[IngestEvent]) -> None:
    """Exchange every other id, as if both batches had been written at the same time."""
    for one, two in list(zip(first, second, strict=True))[::2]:
        one.pk, two.pk = two.pk, one.pk
    IngestEvent.objects.all().filter(pk__in=[event.pk for event in first + second]).delete()
    IngestEvent.objects.bulk_create(first + second)


def of_device(device: Device, **query) -> str:
    return f"{LIST}?{urlencode({'device__id__exact': device.pk} | query)}"


# A batch and a device


def test_a_batch_has_exactly_its_own_events_however_they_were_interleaved(admin_client, store, other):
    ours = store(6)
    theirs = store(6, device_id=other.pk)
    interleave(ours, theirs)
    wanted = sorted((event.pk for event in ours), reverse=True)
    assert rows_shown(admin_client.get(LIST, {"batch": ours[0].batch_id})) == wanted


@pytest.mark.parametrize("away", [timedelta(days=-40), timedelta(hours=-1), timedelta(days=2)])
def test_the_events_of_a_batch_are_found_whatever_the_clock_said(admin_client, store, away):
    """Stored late, or while the clock was wrong: its ids are then not in the order of the times."""
    store(2)
    events = store(2, received_at=timezone.now() + away)
    store(2)
    assert rows_shown(admin_client.get(LIST, {"batch": events[0].batch_id})) == [events[1].pk, events[0].pk]


def test_the_events_of_a_silent_device_are_found_however_many_came_since(admin_client, store, other, monkeypatch):
    monkeypatch.setattr(bounded, "MAX_SEARCHED_ROWS", 5)
    old = store(2, received_at=NOON - timedelta(days=40))
    store(30)
    IngestBatch.objects.filter(pk=old[0].batch_id).update(device=other)
    IngestEvent.objects.filter(batch=old[0].batch_id).update(device=other)
    response = admin_client.get(of_device(other))
    assert rows_shown(response) == [old[1].pk, old[0].pk]
    assert "Only the newest rows" not in response.text


def test_the_pages_of_a_device_show_each_of_its_events_once(admin_client, store, other, device_key, small_pages):
    batches = [store(count) for count in (1, 4, 2, 1, 3, 1)]
    for batch in batches[1::2]:
        IngestBatch.objects.filter(pk=batch[0].batch_id).update(device=other)
        IngestEvent.objects.filter(batch=batch[0].batch_id).update(device=other)
    wanted = [event.pk for batch in reversed(batches[::2]) for event in reversed(batch)]
    pages = [admin_client.get(of_device(device_key.device))]
    while older := link(pages[-1], "Older"):
        pages.append(admin_client.get(older))
    assert [pk for page in pages for pk in rows_shown(page)] == wanted
    assert len(pages) == 2
    assert rows_shown(admin_client.get(link(pages[1], "Newer"))) == wanted[:3]


def test_a_filter_that_leaves_out_most_events_of_a_device_says_how_far_it_looked(
    admin_client, store, device_key, monkeypatch, small_pages
):
    monkeypatch.setattr(finding, "MAX_EVENTS", 8)
    rare = store(kind="discovery")[0]
    for _ in range(5):
        store(4)
    response = admin_client.get(of_device(device_key.device, kind__exact="discovery"))
    assert rows_shown(response) == []
    assert "were searched, back to" in response.text
    while not rows_shown(response):
        response = admin_client.get(link(response, "Search older"))
    assert rows_shown(response) == [rare.pk]


def test_expired_batches_of_a_device_are_not_looked_through(admin_client, store, device_key, monkeypatch):
    """Batches are kept for a month, so that a repeat is recognized, and events perhaps for a day."""
    tenant = device_key.device.tenant
    tenant.retention_days = 1
    tenant.save()
    old = store(received_at=timezone.now() - timedelta(days=20))[0]
    assert list(finding.batches_of(device_key.device)) == []
    new = store()[0]
    assert list(finding.batches_of(device_key.device)) == [new.batch]
    assert old.batch != new.batch


def test_the_page_of_a_device_leads_to_its_events(admin_client, store, device_key):
    event = store()[0]
    found = re.search(
        r'href="([^"]+ingestevent/\?device__id__exact=\d+)"', admin_client.get(page_of(device_key.device)).text
    )
    assert rows_shown(admin_client.get(found[1])) == [event.pk]


def test_staff_with_every_permission_find_nothing_of_another_tenant():
    ours, theirs = Side("ours"), Side("theirs")
    client = ours.client()
    moment = f"{theirs.event.received_at:%Y-%m-%d %H:%M:%S}"
    for query in (
        {"batch": theirs.batch.pk},
        {"device__id__exact": theirs.device.pk},
        {"device__id__exact": theirs.device.pk, "around": moment},
        {"device__id__exact": theirs.device.pk, "around": moment, "clock": "device"},
        {"q": "theirs-message"},
        {"batch": theirs.batch.pk, "device__id__exact": theirs.device.pk, "q": "theirs"},
    ):
        response = client.get(LIST, query)
        assert rows_shown(response) == [], query
        assert "theirs-press" not in response.text
        assert "The device last sent" not in response.text
    assert rows_shown(client.get(LIST, {"batch": ours.batch.pk})) == [ours.event.pk]
    assert rows_shown(client.get(LIST, {"around": moment, "clock": "device"})) == [ours.event.pk]


# Around a moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("14:05", datetime(2026, 11, 27, 14, 5, tzinfo=UTC)),
        ("4:05", datetime(2026, 11, 27, 4, 5, tzinfo=UTC)),
        (" 14:05:30 ", datetime(2026, 11, 27, 14, 5, 30, tzinfo=UTC)),
        ("2026-11-20 14:05", datetime(2026, 11, 20, 14, 5, tzinfo=UTC)),
        ("2026-11-20T14:05:00Z", datetime(2026, 11, 20, 14, 5, tzinfo=UTC)),
        ("2026-11-20T14:05:00.250+01:00", datetime(2026, 11, 20, 13, 5, 0, 250000, tzinfo=UTC)),
        ("2026-11-20T14:05+0100", datetime(2026, 11, 20, 13, 5, tzinfo=UTC)),
    ],
)
def test_times_are_understood_as_staff_write_them(text, moment):
    now = datetime(2026, 11, 27, 23, 30, tzinfo=UTC)
    assert parse_moment(text, now) == moment


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "25:00",
        "14:61",
        "2026-02-31 10:00",
        "2026-11-20",
        "0001-01-01 00:00",
        "9999-12-31 23:59",
        "14",
        "\N{ARABIC-INDIC DIGIT ONE}4:05",
        "2026-11-20T14:05:00+99:00",
    ],
)
def test_what_is_no_time_gets_a_message_and_shows_no_rows(admin_client, store, text):
    with pytest.raises(InvalidMomentError):
        parse_moment(text, timezone.now())
    store()
    response = admin_client.get(LIST, {"around": text})
    assert "is not a time. Write 14:05" in response.text
    assert rows_shown(response) == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"around": "14:05", "since": "13:00"}, "either a moment or a range"),
        ({"since": "14:00", "until": "13:00"}, "ends before it begins"),
        ({"around": "14:05", "clock": "sundial"}, "There is no clock"),
        ({"since": "2026-11-01", "until": "2026-11-20", "clock": "device"}, "at most a day apart"),
        ({"since": "2026-11-01", "clock": "device"}, "needs both ends"),
        ({"before": "x"}, "is not a place in this list"),
        ({"before": "2026-11-27T14:05:00+00:00"}, "is not a place in this list"),
        ({"around": "14:05", "clock": "device", "before": "5,5"}, "is not a place in this list"),
        ({"around": "14:05", "clock": "device", "after": "0001-01-01T00:00:00+14:00,5"}, "is not a place"),
    ],
)
def test_a_filter_that_makes_no_sense_is_not_left_out(admin_client, store, query, message):
    store()
    response = admin_client.get(LIST, query)
    assert message in response.text
    assert rows_shown(response) == []


@pytest.mark.parametrize("by_device", [True, False])
def test_what_a_device_sent_around_a_moment_by_our_clock(admin_client, store, device_key, by_device):
    rows = {minutes: store(received_at=NOON + timedelta(minutes=minutes))[0].pk for minutes in (-10, -4, 0, 5, 6)}
    query = {"around": f"{NOON:%Y-%m-%d %H:%M}"} | ({"device__id__exact": device_key.device_id} if by_device else {})
    assert rows_shown(admin_client.get(LIST, query)) == [rows[5], rows[0], rows[-4]]
    del query["around"]
    query |= {"since": f"{NOON:%Y-%m-%d %H:%M}", "until": f"{NOON:%Y-%m-%d}"}
    assert rows_shown(admin_client.get(LIST, query)) == [rows[6], rows[5], rows[0]]


@pytest.mark.parametrize("by_device", [True, False])
def test_what_a_device_sent_around_a_moment_by_its_own_clock(admin_client, store, device_key, by_device, small_pages):
    rows = {minutes: store(timestamp=NOON + timedelta(minutes=minutes))[0].pk for minutes in (5, -10, 0, 6, -4, 2, 1)}
    query = {"around": f"{NOON:%Y-%m-%d %H:%M}", "clock": "device"}
    query |= {"device__id__exact": device_key.device_id} if by_device else {}
    first = admin_client.get(LIST, query)
    assert rows_shown(first) == [rows[5], rows[2], rows[1]]
    second = admin_client.get(link(first, "Older"))
    assert rows_shown(second) == [rows[0], rows[-4]]
    assert rows_shown(admin_client.get(link(second, "Newer"))) == [rows[5], rows[2], rows[1]]
    assert rows_shown(admin_client.get(LIST, query | {"clock": "ours"})) == []


def test_each_row_leads_to_what_its_device_sent_around_it(admin_client, store, other):
    event = store(received_at=NOON)[0]
    store(received_at=NOON, device_id=other.pk)
    near = store(received_at=NOON + timedelta(minutes=3))[0]
    store(received_at=NOON + timedelta(minutes=30))
    page = admin_client.get(list_of(IngestEvent)).text
    found = re.findall(r'href="([^"]+)" title="What the device sent around it"', page)[-1].replace("&amp;", "&")
    assert rows_shown(admin_client.get(found)) == [near.pk, event.pk]


# In the data


def found(client, text: str, **query) -> list[int]:
    return rows_shown(client.get(LIST, {"q": text} | query))


@pytest.mark.parametrize(
    ("text", "value", "is_found"),
    [
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.5", "10.0.0.55", False),
        ("10.0.0.5", "110.0.0.5", False),
        ("10.0.0.5", "10x0.0.5", False),
        ("10.0.0.5", "10.0.0.5\n", False),
        ("10.0.0.5", "login from 10.0.0.5", False),
        ("10.0.0.0/24", "10.0.0.55", True),
        ("10.0.0.0/24", "10.0.1.5", False),
        ("10.0.0.0/24", "10.0.0.300", False),
        ("10.0.0.128/25", "10.0.0.127", False),
        ("10.0.0.128/25", "10.0.0.200", True),
        ("10.0.0.77/25", "10.0.0.3", True),
        ("0.0.0.0/0", "192.0.2.7", True),
        ("2001:db8::1", "2001:db8::1", True),
        ("2001:db8::1", "2001:0DB8:0:0::0001", True),
        ("2001:0db8:0:0:0:0:0:1", "2001:db8::1", True),
        ("2001:db8::1", "2001:db8::11", False),
        ("2001:db8::1", "2001:db8::1:1", False),
        ("::ffff:192.0.2.7", "::FFFF:c000:207", True),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("::1", "::", False),
        ("Überdruck", "Der ÜBERDRUCK".title(), True),
        ("pump 7", "PUMP 7 stopped", True),
        ("a.c", "abc", False),
        ('say "x" \\ (y) [z] $1', 'say "x" \\ (y) [z] $1', True),
        ("level", "something else", False),
        ("%", "100 %", True),
        ("_", "x", False),
    ],
)
def test_a_search_finds_a_text_within_a_value_and_an_address_as_a_whole_one(admin_client, store, text, value, is_found):
    event = store(data={"level": value, "deep": [{"er": 1}]})[0]
    nested = store(data={"list": [1, {"ip": value}]})[0]
    assert found(admin_client, text) == ([nested.pk, event.pk] if is_found else [])


def test_the_keys_of_the_data_are_not_searched(admin_client, store):
    store(data={"10.0.0.5": "pump"})
    assert found(admin_client, "10.0.0.5") == []


def test_a_search_within_a_device_and_a_window_of_time(admin_client, store, device_key):
    event = store(data={"ip": "10.0.0.5"}, received_at=NOON)[0]
    store(data={"ip": "10.0.0.5"}, received_at=NOON + timedelta(hours=1))
    query = {"device__id__exact": device_key.device_id, "around": f"{NOON:%Y-%m-%d %H:%M}"}
    assert found(admin_client, "10.0.0.5", **query) == [event.pk]


def test_a_search_that_was_cut_says_until_where_it_looked(admin_client, store, monkeypatch):
    monkeypatch.setattr("ingest.admin_events.MAX_SEARCHED_DATA", 5)
    old = store(data={"ip": "10.0.0.5"})[0]
    store(7)
    response = admin_client.get(LIST, {"q": "10.0.0.5"})
    assert "Only the newest rows were searched, back to" in response.text
    assert rows_shown(admin_client.get(link(response, "Search older"))) == [old.pk]


def test_a_network_of_ipv6_and_a_long_text_are_refused_with_a_message(admin_client, store):
    store()
    for text, message in (("2001:db8::/32", "network of IPv6"), ("x" * 201, "at most 200 characters")):
        response = admin_client.get(LIST, {"q": text})
        assert message in response.text
        assert rows_shown(response) == []


# An empty list


def test_an_empty_list_says_why_and_when_the_device_last_sent_an_event(admin_client, store, device_key):
    event = store(received_at=NOON)[0]
    response = admin_client.get(of_device(device_key.device, around=f"{NOON:%Y-%m-%d} 03:00"))
    assert rows_shown(response) == []
    assert f"from {NOON:%Y-%m-%d} 02:55:00 UTC to {NOON:%Y-%m-%d} 03:05:00 UTC, by our clock." in response.text
    text = response.text.replace("&amp;", "&")
    there = re.search(r'The device last sent an event at <a class="text-link" href="([^"]+)">', text)[1]
    assert rows_shown(admin_client.get(there)) == [event.pk]


def test_an_empty_list_says_that_events_expire(admin_client, device_key):
    device_key.device.tenant.retention_days = 30
    device_key.device.tenant.save()
    text = admin_client.get(of_device(device_key.device)).text
    assert "The device has sent no event that is still kept." in text
    assert "are kept for 30 days" in text


def test_an_empty_list_says_that_there_is_no_such_batch(admin_client):
    assert "There is no such batch" in admin_client.get(LIST, {"batch": 987654}).text
