"""`POST /api/v1/triage` and `/api/v1/undo`: what people do about groups."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from alerts.models import AlertGroup, GroupChange, Status
from tenants.models import Membership, Role
from tests.support.alert_rows import alert_row
from tests.support.assertions import assert_problem
from tests.support.side import Side

pytestmark = pytest.mark.django_db(transaction=True)

CLOSED = {"status": "closed", "disposition": "false_positive"}


@pytest.fixture
def side() -> Side:
    return Side("ours")


@pytest.fixture
def client(side) -> Client:
    return side.client()


def colleague(side: Side, role: Role = Role.ANALYST, name: str = "colleague") -> tuple[User, Client]:
    user, client = User.objects.create_user(name), Client()
    Membership.objects.create(tenant=side.tenant, user=user, role=role)
    client.force_login(user)
    return user, client


def another_group(side: Side, title: str = "another", **fields) -> AlertGroup:
    alert = side.alert
    owner = {"tenant": side.tenant, "device": side.device, "timestamp": alert.timestamp, "severity": "low"}
    return alert_row(title=title, received_at=alert.received_at, **owner, **fields).group


def post(client: Client, path: str, **body):
    return client.post(f"/api/v1/{path}", body, content_type="application/json")


def triage(client: Client, *groups: AlertGroup, **body):
    """Triage the groups as they are in the database, or as they were when the test read them."""
    seen = [{"id": group.pk, "version": group.version} for group in groups]
    return post(client, "triage", **{"operation": str(uuid4()), "groups": seen} | body)


def done(answer) -> dict:
    assert answer.status_code == 200, answer.content
    return answer.json()


def history() -> list[tuple[str, str, str]]:
    changes = GroupChange.objects.exclude(after="ours-note").order_by("pk")
    return [(change.field, change.before, change.after) for change in changes]


def test_closing_says_who_and_as_what(side, client):
    before = side.alert.group
    [group] = done(triage(client, before, **CLOSED, note="Our scanner."))["changed"]
    assert (group["status"], group["disposition"], group["status_changed_by"]) == (
        "closed", "false_positive", "ours-staff",
    )  # fmt: skip
    assert (group["version"], group["revision"] > before.revision) == (before.version + 1, True)
    assert history() == [
        ("status", "new", "closed"),
        ("disposition", "", "false_positive"),
        ("note", "", "Our scanner."),
    ]


def test_reopening_clears_the_disposition(side, client):
    done(triage(client, side.alert.group, **CLOSED))
    [group] = done(triage(client, AlertGroup.objects.get(), status="new"))["changed"]
    assert (group["status"], group["disposition"], group["since_acknowledged"]) == ("new", None, None)


def test_an_acknowledged_group_says_how_many_came_since(side, client):
    done(triage(client, side.alert.group, status="acknowledged"))
    AlertGroup.objects.update(count=38)
    address = f"/api/v1/groups/{side.alert.group_id}"
    assert client.get(address).json()["since_acknowledged"] == 37
    AlertGroup.objects.update(status=Status.NEW)  # as an alert after a silent day does
    assert client.get(address).json()["since_acknowledged"] is None


def test_the_count_since_goes_on_until_the_group_is_new_again(side, client):
    def change(**body) -> int | None:
        [group] = done(triage(client, AlertGroup.objects.get(), **body))["changed"]
        return group["since_acknowledged"]

    address = f"/api/v1/groups/{side.alert.group_id}"
    assert change(status="acknowledged") == 0
    AlertGroup.objects.update(count=38)
    assert change(status="in_progress") == 37
    closing = str(uuid4())
    assert change(operation=closing, **CLOSED) is None
    done(post(client, "undo", operation=str(uuid4()), undoes=closing))
    assert client.get(address).json()["since_acknowledged"] == 37
    AlertGroup.objects.update(status=Status.NEW, count=40)  # as an alert after a silent day does
    assert change(status="in_progress") == 0


def test_many_groups_get_one_note_and_one_operation(side, client):
    groups = [side.alert.group, another_group(side), another_group(side, "third")]
    answer = done(triage(client, *groups, note="Same scanner."))
    assert len(answer["changed"]) == 3
    assert len({group["revision"] for group in answer["changed"]}) == 3
    assert GroupChange.objects.filter(operation=answer["operation"]).count() == 3


def test_what_is_already_so_is_no_change(side, client):
    before = AlertGroup.objects.values().get()
    answer = done(triage(client, side.alert.group, status="new", assignee=None))
    assert (answer["changed"], history()) == ([], [])
    assert AlertGroup.objects.values().get() == before


def test_a_repeated_operation_is_done_once(side, client):
    body = {"operation": str(uuid4()), "status": "acknowledged", "note": "Looking."}
    first, second = (done(triage(client, side.alert.group, **body)) for _ in range(2))
    assert first == second
    assert history() == [("status", "new", "acknowledged"), ("note", "", "Looking.")]
    _, other = colleague(side)
    assert_problem(triage(other, side.alert.group, **body), 409, "operation_taken")


def test_nobody_overwrites_what_they_have_not_seen(side, client):
    seen = side.alert.group
    _, other = colleague(side)
    done(triage(other, seen, **CLOSED))
    answer = done(triage(client, seen, status="acknowledged"))
    [stale] = answer["stale"]
    assert answer["changed"] == []
    assert (stale["group"]["status"], stale["change"]["user"], stale["change"]["after"]) == (
        "closed", "colleague", "false_positive",
    )  # fmt: skip
    assert AlertGroup.objects.get().status == Status.CLOSED
    [group] = done(triage(client, seen, status="acknowledged", force=True))["changed"]
    assert group["status"] == "acknowledged"


def test_an_alert_makes_nobody_stale(side, client):
    seen = side.alert.group
    AlertGroup.objects.update(count=2)
    assert len(done(triage(client, seen, status="acknowledged"))["changed"]) == 1


def test_a_group_is_assigned_to_those_who_may_triage_it(side, client):
    analyst, _ = colleague(side)
    viewer, _ = colleague(side, Role.VIEWER, "viewer")
    stranger = Side("theirs").user
    root = User.objects.create_superuser("root")
    [group] = done(triage(client, side.alert.group, assignee=analyst.pk))["changed"]
    assert group["assignee"] == {"id": analyst.pk, "name": "colleague"}
    for person in (viewer.pk, stranger.pk, root.pk, 999_999):
        answer = done(triage(client, AlertGroup.objects.get(pk=group["id"]), assignee=person))
        assert [(each["id"], each["code"]) for each in answer["refused"]] == [(group["id"], "not_assignable")]
    own = Client()
    own.force_login(root)
    [group] = done(triage(own, AlertGroup.objects.get(pk=group["id"]), assignee=root.pk))["changed"]
    assert group["assignee"]["name"] == "root"
    assert client.get(f"/api/v1/groups/{group['id']}").json()["assignee"]["name"] == "root"


@pytest.mark.parametrize(("role", "code"), [(Role.VIEWER, "forbidden"), (Role.ANALYST, None), (Role.ADMIN, None)])
def test_viewers_change_nothing(side, role, code):
    _, client = colleague(side, role)
    before = side.state()
    answer = done(triage(client, side.alert.group, note="x"))
    assert [each["code"] for each in answer["refused"]] == ([code] if code else [])
    assert (side.state() == before) == (code is not None)


def test_groups_of_another_tenant_are_not_found(side, client):
    theirs = Side("theirs")
    before = theirs.state()
    answer = done(triage(client, side.alert.group, theirs.alert.group, status="acknowledged"))
    assert [each["id"] for each in answer["changed"]] == [side.alert.group_id]
    assert [(each["id"], each["code"]) for each in answer["refused"]] == [(theirs.alert.group_id, "not_found")]
    assert theirs.state() == before


def test_a_group_stays_closed_beside_an_open_one_of_its_alerts(side, client):
    done(triage(client, side.alert.group, **CLOSED))
    newer = another_group(side, side.alert.title)
    answer = done(triage(client, AlertGroup.objects.get(pk=side.alert.group_id), status="new"))
    assert [each["code"] for each in answer["refused"]] == ["newer_group_open"]
    done(triage(client, newer, **CLOSED))
    both = AlertGroup.objects.all()
    answer = done(triage(client, *both, status="new"))  # one of them at most: the newest
    assert [each["id"] for each in answer["changed"]] == [newer.pk]
    assert [each["code"] for each in answer["refused"]] == ["newer_group_open"]


def test_what_was_done_is_undone_once(side, client):
    analyst, _ = colleague(side)
    done(triage(client, side.alert.group, assignee=analyst.pk))
    seen = AlertGroup.objects.get()
    operation = done(triage(client, seen, **CLOSED, assignee=side.user.pk, note="Ours."))["operation"]
    undoing = {"operation": str(uuid4()), "undoes": operation}
    [group] = done(post(client, "undo", **undoing))["changed"]
    assert (group["status"], group["disposition"], group["assignee"]["name"]) == ("new", None, "colleague")
    notes = GroupChange.objects.filter(group=seen, field="note", operation=operation)
    assert notes.count() == 1  # history is only added to
    count = GroupChange.objects.count()
    assert [each["id"] for each in done(post(client, "undo", **undoing))["changed"]] == [seen.pk]
    again = done(post(client, "undo", operation=str(uuid4()), undoes=operation))
    assert (again["changed"], again["stale"], again["refused"]) == ([], [], [])
    assert GroupChange.objects.count() == count


@pytest.mark.parametrize("loss", ["role", "account"])
def test_nobody_is_assigned_by_an_undo_who_may_no_longer_triage(side, client, loss):
    user, _ = colleague(side)
    done(triage(client, side.alert.group, assignee=user.pk))
    taking = done(triage(client, AlertGroup.objects.get(), assignee=None))["operation"]
    if loss == "role":
        Membership.objects.filter(user=user).update(role=Role.VIEWER)
    else:
        User.objects.filter(pk=user.pk).update(is_active=False)
    answer = done(post(client, "undo", operation=str(uuid4()), undoes=taking))
    assert [refusal["code"] for refusal in answer["refused"]] == ["not_assignable"]
    assert AlertGroup.objects.get().assignee is None


def test_an_undo_gives_a_group_back_to_a_superuser(side, client):
    root = User.objects.create_superuser("root")
    own = Client()
    own.force_login(root)
    done(triage(own, side.alert.group, assignee=root.pk))
    taking = done(triage(client, AlertGroup.objects.get(), assignee=side.user.pk))["operation"]
    done(post(client, "undo", operation=str(uuid4()), undoes=taking))
    assert AlertGroup.objects.get().assignee == root


def test_what_others_changed_since_is_not_undone(side, client):
    operation = done(triage(client, side.alert.group, status="acknowledged"))["operation"]
    _, other = colleague(side)
    done(triage(other, AlertGroup.objects.get(), status="in_progress"))
    answer = done(post(client, "undo", operation=str(uuid4()), undoes=operation))
    assert [each["change"]["user"] for each in answer["stale"]] == ["colleague"]
    assert AlertGroup.objects.get().status == Status.IN_PROGRESS
    body = {"operation": str(uuid4()), "undoes": operation}
    assert_problem(post(other, "undo", **body), 409, "operation_unknown")  # only one's own


def test_a_closing_is_not_undone_beside_a_newer_open_group(side, client):
    operation = done(triage(client, side.alert.group, **CLOSED))["operation"]
    another_group(side, side.alert.title)
    answer = done(post(client, "undo", operation=str(uuid4()), undoes=operation))
    assert [each["code"] for each in answer["refused"]] == ["newer_group_open"]


def test_of_two_at_once_one_is_stale(side, client):
    _, other = colleague(side)
    seen = side.alert.group

    def acknowledge(by: Client):
        try:
            return done(triage(by, seen, status="acknowledged", note="mine"))
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(acknowledge, [client, other]))
    assert sorted((len(answer["changed"]), len(answer["stale"])) for answer in answers) == [(0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, None),
        ({"status": "closed"}, "disposition"),
        ({"status": "new", "disposition": "benign"}, "disposition"),
        ({"status": "open"}, "status"),
        ({"note": ""}, "note"),
        ({"note": "x" * 4001}, "note"),
        ({"note": "\0"}, "note"),
        ({"note": "\ud800"}, "note"),
        ({"note": "x", "operation": "1"}, "operation"),
        ({"note": "x", "groups": []}, "groups"),
        ({"note": "x", "groups": [{"id": 10**30, "version": 0}]}, "groups"),
        ({"note": "x", "groups": [{"id": 1, "version": 0}] * 501}, "groups"),
        ({"note": "x", "groups": "all"}, "groups"),
        ({"assignee": "me"}, "assignee"),
        ({"note": "x", "force": "maybe"}, "force"),
    ],
)
def test_a_bad_request_is_named_and_changes_nothing(side, client, body, field):
    before = side.state()
    answer = triage(client, side.alert.group, **body)
    assert_problem(answer, 400, "invalid_request")
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert side.state() == before


@pytest.mark.parametrize("body", [b"[" * 100_000, b"[]", b'"x"', b"{", b"", b"\xff", b'{"operation": null}'])
def test_odd_bodies_are_bad_requests(client, body):
    for path in ("triage", "undo", "filters"):
        assert client.post(f"/api/v1/{path}", body, content_type="application/json").status_code == 400


def test_a_request_from_elsewhere_changes_nothing(side):
    client = Client(enforce_csrf_checks=True)
    client.force_login(side.user)
    assert_problem(triage(client, side.alert.group, note="x"), 403, "permission_denied")
    assert_problem(triage(Client(), side.alert.group, note="x"), 401, "not_authenticated")
