"""`/api/v1/groups` and what is below it: who sees which groups, by which filters, in which pages."""

import csv
import io
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from django.test import Client

from alerts.api import summary
from alerts.models import AlertGroup, GroupChange, Status
from tenants.models import Membership, Role
from tests.support.alert_rows import alert_row, set_status
from tests.support.assertions import assert_problem
from tests.support.side import Side

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 6, 6, 12, tzinfo=UTC)


@pytest.fixture
def ours() -> Side:
    """A tenant whose own group is closed, so that it is out of the way."""
    side = Side("ours")
    set_status(AlertGroup.objects.all(), Status.CLOSED)
    return side


@pytest.fixture
def client(ours) -> Client:
    return ours.client()


def group(side: Side, title: str, **fields) -> AlertGroup:
    owner = {"tenant": side.tenant, "device": side.device, "timestamp": NOW, "received_at": NOW}
    return alert_row(**owner | {"title": title, "severity": "low"} | fields).group


def titles(client: Client, **query) -> list[str]:
    answer = client.get(f"/api/v1/groups?{urlencode(query, doseq=True)}")
    assert answer.status_code == 200, answer.content
    return [each["title"] for each in answer.json()["results"]]


def test_the_last_changed_group_comes_first(ours, client):
    first, second = group(ours, "first"), group(ours, "second")
    assert titles(client) == ["second", "first"]
    set_status(AlertGroup.objects.filter(pk=first.pk), Status.ACKNOWLEDGED)
    answer = client.get("/api/v1/groups").json()
    assert [each["id"] for each in answer["results"]] == [first.pk, second.pk]
    assert answer["revision"] == AlertGroup.objects.get(pk=first.pk).revision
    assert answer["next"] is None


def test_pages_have_every_group_once(ours, client):
    made = [group(ours, f"title {number}").pk for number in range(5)]
    seen, address = [], "/api/v1/groups?limit=2&severity=low"
    while address:
        answer = client.get(address).json()
        seen += [each["id"] for each in answer["results"]]
        address = answer["next"]
    assert seen == made[::-1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"severity": "critical"}, ["worst"]),
        ({"severity": ["critical", "high"]}, ["bad", "worst"]),
        ({"status": "acknowledged"}, ["bad"]),
        ({"status": "any"}, ["bad", "worst", "plain", "ours-title"]),
        ({"status": "closed", "disposition": "benign"}, ["ours-title"]),
        ({"disposition": "duplicate", "status": "any"}, []),
        ({"source": "192.0.2.7"}, ["worst"]),
        ({"source": "192.0.2.0/24"}, ["bad", "worst"]),
        ({"address": ["192.0.2.9", "2001:db8::/32"]}, ["bad"]),
        ({"destination": "192.0.2.7"}, []),
        ({"q": "WOR st"}, ["worst"]),
        ({"q": "worst bad"}, []),
        ({"tenant": "ours", "severity": "low"}, ["plain"]),
        ({"tenant": "theirs"}, []),
        ({"assignee": "none"}, ["bad", "worst", "plain"]),
        ({"assignee": "me"}, []),
        ({"assignee": "999999"}, []),
        ({"since": NOW + timedelta(seconds=1)}, []),
        ({"since": NOW, "until": NOW}, ["bad", "worst", "plain"]),
        ({"suppressed": "yes", "status": "any"}, []),
    ],
)
def test_filters(ours, client, query, expected):
    group(ours, "plain")
    group(ours, "worst", severity="critical", source_ip="192.0.2.7")
    bad = group(ours, "bad", severity="high", source_ip="192.0.2.9")
    set_status(AlertGroup.objects.filter(pk=bad.pk), Status.ACKNOWLEDGED)
    assert titles(client, **query) == expected


def test_a_group_belongs_to_the_device_only_if_it_has_no_address(ours, client):
    group(ours, "disk")
    group(ours, "scan", source_ip="192.0.2.7")
    assert titles(client, device=ours.device.pk) == ["disk"]


def test_groups_whose_alerts_were_all_suppressed_are_found_only_by_that_filter(ours, client):
    AlertGroup.objects.filter(pk=group(ours, "noise").pk).update(count=0, suppressed_count=3)
    assert titles(client) == []
    assert titles(client, suppressed="yes") == ["noise"]


@pytest.mark.parametrize(
    "query",
    [
        "severity=worst", "status=open", "assignee=you", "assignee=99999999999999999999", "device=0", "device=x",
        "device=99999999999999999999", "source=10.0.0.0/33", "address=fe80::1%25eth0", "q=%00", "since=yesterday",
        "tenant=%20", "suppressed=no", "cursor=-1", "cursor=99999999999999999999", "limit=0", "limit=201",
        "q=" + "+".join("abcdefghijk"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named(client, query):
    answer = client.get(f"/api/v1/groups?{query}")
    assert_problem(answer, 400, "invalid_request")
    assert answer.json()["errors"][0]["field"] == query.partition("=")[0]


def test_nothing_of_another_tenant_is_shown(ours, client):
    theirs = Side("theirs")
    shared = {"source_ip": "192.0.2.7"}
    mine, other = group(ours, "mine", **shared), group(theirs, "other", **shared)
    assert titles(client, status="any") == ["mine", "ours-title"]
    for path in ("", "/alerts", "/changes"):
        assert client.get(f"/api/v1/groups/{mine.pk}{path}").status_code == 200
        assert_problem(client.get(f"/api/v1/groups/{other.pk}{path}"), 404, "not_found")
    assert_problem(client.get(f"/api/v1/devices/{theirs.device.pk}/events?around={NOW:%FT%TZ}"), 404, "not_found")
    answers = [
        client.get(f"/api/v1/{path}").content.decode()
        for path in (
            "groups?status=any", "groups/summary?status=any", f"groups/{mine.pk}",
            "groups/export?format=csv&status=any",            "groups/export?format=json&status=any", "me", "filters",
        )
    ]  # fmt: skip
    assert not [answer for answer in answers if "theirs" in answer or "other" in answer]


def test_a_superuser_sees_the_groups_of_all_tenants(ours, admin_client):
    group(Side("theirs"), "another")
    assert titles(admin_client, q="another") == ["another"]
    assert titles(admin_client, tenant="ours", status="any") == ["ours-title"]


def test_one_group_with_what_is_beside_it(ours, client):
    admin = Membership.objects.create(tenant=ours.tenant, user=Side("theirs").user, role=Role.VIEWER)
    before = group(ours, "scan", source_ip="192.0.2.7")
    set_status(AlertGroup.objects.filter(pk=before.pk), Status.CLOSED)
    related = group(ours, "login", source_ip="192.0.2.7")
    now = group(ours, "scan", source_ip="192.0.2.7")
    AlertGroup.objects.filter(pk=now.pk).update(previous=before)
    answer = client.get(f"/api/v1/groups/{now.pk}").json()
    assert answer["previous"]["status_changed_by"] == "triager"
    assert [each["id"] for each in answer["earlier"]] == [before.pk]
    assert {each["id"] for each in answer["related"]} == {before.pk, related.pk}
    assert answer["assignable"] == [{"id": ours.user.pk, "name": "ours-staff"}]
    assert answer["may_triage"]
    client.force_login(admin.user)  # a viewer here
    answer = client.get(f"/api/v1/groups/{now.pk}").json()
    assert (answer["may_triage"], answer["assignable"]) == (False, [])


def test_the_alerts_and_the_history_of_a_group(ours, client):
    group_id = ours.alert.group_id
    [alert] = client.get(f"/api/v1/groups/{group_id}/alerts").json()["results"]
    assert (alert["title"], alert["device"]["name"], alert["suppressed_by"]) == ("ours-title", "ours-press", None)
    changes = client.get(f"/api/v1/groups/{group_id}/changes?limit=2").json()
    assert [(each["field"], each["after"]) for each in changes["results"]] == [
        ("disposition", "benign"), ("status", "closed"),
    ]  # fmt: skip
    assert [each["after"] for each in client.get(changes["next"]).json()["results"]] == ["ours-note"]
    assert GroupChange.objects.count() == 3


def test_the_events_of_a_device_around_a_moment(ours, client):
    moment = ours.event.timestamp
    for away, count in ((0, 1), (4, 1), (6, 0)):
        query = urlencode({"around": (moment + timedelta(minutes=away)).isoformat()})
        answer = client.get(f"/api/v1/devices/{ours.device.pk}/events?{query}").json()
        assert len(answer["results"]) == count
    for bad in ("", "?around=x"):
        assert_problem(client.get(f"/api/v1/devices/{ours.device.pk}/events{bad}"), 400, "invalid_request")
    for edge in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        assert client.get(f"/api/v1/devices/{ours.device.pk}/events?around={edge}").json() == {"results": []}


def test_a_summary_counts_what_passes_the_filter(ours, client):
    now = datetime.now(UTC)
    ours.alert.delete()  # ids grow with time
    group(ours, "disk", received_at=now - timedelta(days=3))
    for severity in ("critical", "low"):
        group(ours, severity, severity=severity, source_ip="192.0.2.7", received_at=now - timedelta(minutes=1))
    answer = client.get("/api/v1/groups/summary").json()
    assert (answer["total"], answer["is_exact"]) == (3, True)
    assert answer["by_severity"] == {"critical": 1, "low": 2}
    assert answer["by_status"] == {"new": 3}
    assert sum(bucket["critical"] for bucket in answer["timeline"]["buckets"]) == 1
    assert sum(bucket["low"] for bucket in answer["timeline"]["buckets"]) == 1  # not that of three days ago
    assert answer["top"]["sources"] == [{"value": "192.0.2.7", "count": 2}]
    assert answer["top"]["devices"] == []  # it was in the disk, three days ago
    answer = client.get("/api/v1/groups/summary", {"since": (now - timedelta(days=4)).isoformat()}).json()
    assert answer["top"]["devices"] == [{"id": ours.device.pk, "name": "ours-press", "count": 1}]


def test_a_summary_is_about_the_time_of_the_filter(ours, client, monkeypatch):
    now = datetime.now(UTC)
    ours.alert.delete()  # ids grow with time
    for days in (5, 3, 1):
        group(ours, f"{days} days ago", source_ip=f"192.0.2.{days}", received_at=now - timedelta(days=days))
    window = {"since": (now - timedelta(days=4)).isoformat(), "until": (now - timedelta(days=2)).isoformat()}
    answer = client.get("/api/v1/groups/summary", window).json()
    assert answer["top"]["sources"] == [{"value": "192.0.2.3", "count": 1}]
    assert sum(bucket["low"] for bucket in answer["timeline"]["buckets"]) == 1
    assert answer["timeline"]["buckets"][0]["start"] == window["since"]
    assert answer["timeline"]["is_exact"]
    monkeypatch.setattr(summary, "MAX_ALERTS", 1)
    answer = client.get("/api/v1/groups/summary", {"since": (now - timedelta(days=9)).isoformat()}).json()
    assert (answer["timeline"]["is_exact"], len(answer["top"]["sources"])) == (False, 1)


@pytest.mark.parametrize("since", [None, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
@pytest.mark.parametrize("until", [None, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_summary_of_any_time_is_answered(client, since, until):
    given = {"since": since, "until": until}
    answer = client.get("/api/v1/groups/summary", {name: value for name, value in given.items() if value})
    assert answer.status_code == 200
    assert len(answer.json()["timeline"]["buckets"]) <= 48


def test_an_exported_title_is_no_formula(ours, client):
    for title in ("=1+1", "+1", "-1", "@x", "plain, with a comma"):
        group(ours, title)
    answer = client.get("/api/v1/groups/export?format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert [row["title"] for row in rows] == ["plain, with a comma", "'@x", "'-1", "'+1", "'=1+1"]
    assert (answer["X-Export-Cut"], "attachment" in answer["Content-Disposition"]) == ("no", True)
    exported = client.get("/api/v1/groups/export?format=json&q=comma").json()
    assert [each["title"] for each in exported] == ["plain, with a comma"]
    assert_problem(client.get("/api/v1/groups/export?format=xml"), 400, "invalid_request")


def test_filters_are_kept_under_names(client):
    made = client.post("/api/v1/filters", {"name": "mine", "query": "assignee=me"}, content_type="application/json")
    assert made.status_code == 201
    address = f"/api/v1/filters/{made.json()['id']}"
    again = client.post("/api/v1/filters", {"name": "mine", "query": ""}, content_type="application/json")
    assert_problem(again, 409, "name_taken")
    client.put(address, {"name": "ours", "query": "q=x"}, content_type="application/json")
    stored = {each["name"]: each["query"] for each in client.get("/api/v1/filters").json()["results"]}
    assert stored == {"ours": "q=x", "ours-filter": "status=new"}
    other = Side("theirs").client()
    assert_problem(other.delete(address), 404, "not_found")
    assert client.delete(address).status_code == 204
    assert_problem(client.get(address), 405, "method_not_allowed")


def test_me_says_what_one_may_do(ours):
    for role, may in ((Role.VIEWER, (False, False)), (Role.ANALYST, (True, False)), (Role.ADMIN, (True, True))):
        Membership.objects.filter(user=ours.user).update(role=role)
        answer = ours.client().get("/api/v1/me").json()
        assert answer["user"] == {"id": ours.user.pk, "name": "ours-staff"}
        [tenant] = [SimpleNamespace(**each) for each in answer["tenants"]]
        assert (tenant.slug, tenant.role, (tenant.may_triage, tenant.may_manage)) == ("ours", role, may)


def test_without_a_session_nothing_is_shown():
    for path in ("me", "groups", "groups/1", "groups/1/alerts", "groups/summary", "groups/export", "filters"):
        answer = Client().get(f"/api/v1/{path}")
        assert_problem(answer, 401, "not_authenticated")
        assert answer["WWW-Authenticate"] == "Session"
