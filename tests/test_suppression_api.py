"""`/api/v1/suppressions`: rules are made with a reason and an end, show what they hide, and end."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from alerts.api import suppression
from alerts.models import SecurityAlert, SuppressionRule
from tenants.models import Membership, Role
from tests.support.alert_rows import alert_row, suppression_rule
from tests.support.assertions import assert_problem
from tests.support.side import Side

pytestmark = pytest.mark.django_db(transaction=True)

ADDRESS = "/api/v1/suppressions"


@pytest.fixture
def ours() -> Side:
    side = Side("ours")
    SuppressionRule.objects.all().delete()
    return side


@pytest.fixture
def client(ours) -> Client:
    return ours.client()


def rule(**fields) -> dict:
    given = {"tenant": "ours", "title": "Port scan", "worst_severity": "medium", "reason": "Our own scanner"}
    return given | {"ends_at": (timezone.now() + timedelta(days=1)).isoformat()} | fields


def post(client: Client, body: dict, path: str = ""):
    return client.post(ADDRESS + path, body, content_type="application/json")


def send(side: Side, title: str, **fields) -> SecurityAlert:
    now = timezone.now()
    given = {"tenant": side.tenant, "device": side.device, "timestamp": now, "received_at": now, "severity": "low"}
    return alert_row(title=title, **given | fields)


def test_a_rule_is_made_listed_and_ended(ours, client):
    made = post(client, rule(source="10.1.2.3/8", device=ours.device.pk))
    assert made.status_code == 201, made.content
    expected = {
        "tenant": {"slug": "ours", "name": "ours"}, "title": "Port scan", "title_match": "equals",
        "source": "10.0.0.0/8", "destination": None, "device": {"id": ours.device.pk, "name": "ours-press"},
        "worst_severity": "medium", "reason": "Our own scanner", "created_by": "ours-staff", "ended_by": None,
        "suppressed": {"alerts": 0, "is_exact": True, "last_at": None},
    }  # fmt: skip
    assert made.json() | expected == made.json()
    assert client.get(ADDRESS).json()["results"] == [made.json()]
    assert client.get(f"{ADDRESS}?state=ended").json()["results"] == []
    ended = post(client, {}, f"/{made.json()['id']}/end").json()
    assert ended["ended_by"] == "ours-staff"
    assert client.get(ADDRESS).json()["results"] == []
    assert client.get(f"{ADDRESS}?state=ended").json()["results"] == [ended]
    assert post(client, {}, f"/{made.json()['id']}/end").json() == ended


def test_a_rule_tells_what_it_has_suppressed(ours, client, monkeypatch):
    monkeypatch.setattr(suppression, "MAX_COUNTED", 2)
    made = suppression_rule(ours.tenant, timezone.now(), title="noise")
    alerts = [send(ours, f"noise {number}") for number in range(3)]
    for count, exact in ((2, True), (3, False)):
        SecurityAlert.objects.filter(pk__in=[alert.pk for alert in alerts[:count]]).update(suppressed_by=made)
        [listed] = client.get(ADDRESS).json()["results"]
        last = alerts[count - 1].received_at.isoformat()
        assert listed["suppressed"] == {"alerts": 2, "is_exact": exact, "last_at": last}
    listed = client.get(f"{ADDRESS}/{made.pk}/alerts?limit=2").json()
    assert [each["id"] for each in listed["results"]] == [alerts[2].pk, alerts[1].pk]
    assert listed["results"][0]["suppressed_by"] == made.pk
    assert [each["id"] for each in client.get(listed["next"]).json()["results"]] == [alerts[0].pk]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reason": " "}, "reason"),
        ({"ends_at": "2020-01-01T00:00:00Z"}, "ends_at"),
        ({"ends_at": (timezone.now() + timedelta(days=31)).isoformat()}, "ends_at"),
        ({"ends_at": "0001-01-01T00:00:00Z"}, "ends_at"),
        ({"source": "10.0.0.0/40"}, "source"),
        ({"worst_severity": "worse"}, "worst_severity"),
        ({"title": "", "source": None}, "source"),
        ({"title": ""}, None),
        ({"title_match": "regex"}, "title_match"),
        ({"title": "\0"}, "title"),
        ({"tenant": "theirs"}, "tenant"),
        ({"device": 999_999}, "device"),
    ],
)
def test_a_bad_rule_is_refused_by_field(client, fields, field):
    answer = post(client, rule(**fields))
    assert_problem(answer, 400, "invalid_request")
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert not SuppressionRule.objects.exists()


def test_the_device_of_another_tenant_is_unknown(client):
    theirs = Side("theirs")
    assert_problem(post(client, rule(device=theirs.device.pk)), 400, "invalid_request")
    assert_problem(post(client, rule(tenant="theirs")), 400, "invalid_request")
    assert_problem(post(client, {}, f"/{theirs.rule.pk}/end"), 404, "not_found")
    assert_problem(client.get(f"{ADDRESS}/{theirs.rule.pk}/alerts"), 404, "not_found")
    assert SuppressionRule.objects.get().ended_by_name == ""


def test_the_same_rule_is_made_once_and_a_tenant_has_not_too_many(ours, client, monkeypatch):
    first = rule()
    assert post(client, first).status_code == 201
    assert_problem(post(client, first | {"reason": "Again"}), 409, "already_suppressed")
    monkeypatch.setattr(suppression, "MAX_RULES", 2)
    assert post(client, rule(title="Disk full")).status_code == 201
    assert_problem(post(client, rule(title="Fan failed")), 409, "too_many_rules")
    SuppressionRule.objects.filter(title="Port scan").update(ends_at=timezone.now())
    assert post(client, rule()).status_code == 201


def test_a_rule_is_renewed_by_one_that_ends_later(client):
    end = timezone.now() + timedelta(days=1)
    assert post(client, rule(ends_at=end.isoformat())).status_code == 201
    assert_problem(post(client, rule(ends_at=end.isoformat())), 409, "already_suppressed")
    assert post(client, rule(ends_at=(end + timedelta(days=1)).isoformat())).status_code == 201


def test_viewers_see_rules_and_change_none(ours, client):
    made = post(client, rule()).json()
    Membership.objects.update(role=Role.VIEWER)
    assert client.get(ADDRESS).json()["results"] == [made]
    for body, path in ((rule(title="x"), ""), (rule(), "/preview"), ({}, f"/{made['id']}/end")):
        assert_problem(post(client, body, path), 403, "permission_denied")
    assert SuppressionRule.objects.get().ended_by_name == ""


def test_the_preview_counts_what_the_last_day_would_have_hidden(ours, client):
    noisy = [send(ours, "noise", source_ip="10.0.0.1") for _ in range(1)]
    SecurityAlert.objects.bulk_create([copy_of(noisy[0]) for _ in range(3)])
    other = send(ours, "noise", source_ip="10.0.0.2")
    send(ours, "noise", source_ip="10.0.0.3", severity="high")
    send(ours, "noise", source_ip="192.0.2.1")
    send(Side("theirs"), "noise", source_ip="10.0.0.1")
    already = send(ours, "noise", source_ip="10.0.0.4")
    SecurityAlert.objects.filter(pk=already.pk).update(suppressed_by=suppression_rule(ours.tenant, timezone.now()))
    preview = post(client, rule(title="noise", source="10.0.0.0/8"), "/preview").json()
    assert (preview["alerts"], preview["groups"], preview["is_exact"]) == (5, 2, True)
    seen = [(each["group"]["id"], each["alerts"]) for each in preview["examples"]]
    assert seen == [(noisy[0].group_id, 4), (other.group_id, 1)]


def test_the_preview_looks_one_day_back_and_at_a_bounded_number(ours, client, monkeypatch):
    now = timezone.now()
    ours.alert.delete()  # ids grow with time
    for hours in (30, 20, 10, 1):
        send(ours, "noise", source_ip=f"10.0.0.{hours}", received_at=now - timedelta(hours=hours))
    assert post(client, rule(title="noise"), "/preview").json()["alerts"] == 3
    monkeypatch.setattr(suppression, "MAX_PREVIEWED", 2)
    preview = post(client, rule(title="noise"), "/preview").json()
    assert (preview["alerts"], preview["is_exact"]) == (2, False)


def copy_of(alert: SecurityAlert) -> SecurityAlert:
    copied = SecurityAlert.objects.get(pk=alert.pk)
    copied.pk = None
    return copied
