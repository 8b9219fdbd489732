"""Searches for words and addresses: the entries that they read, and that these never decide what is found."""

import importlib
import time
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.test import Client

from alerts import searching
from alerts.models import AlertGroup, GroupSearchEntry
from alerts.order import next_revisions
from tests.support.alert_rows import alert_row
from tests.support.events import alert
from tests.support.plans import rows_read_of
from tests.support.servers import embedded_only, servers_only
from tests.support.side import Side

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 6, 6, 12, tzinfo=UTC)
TITLES = {
    "Port scan from outside": "192.0.2.7",
    "PORT SCAN, 100% sure": "192.0.2.200",
    "Login refused_by host": "2001:db8::7",
    "Größe überschritten": "198.51.100.1",
    "İstanbul ağ geçidi": None,
    "Disk is full": None,
    "x": "192.0.2.7",
}
QUERIES = [
    {"q": "scan"},
    {"q": "SCAN port"},
    {"q": "100%"},
    {"q": "refused_by"},
    {"q": "refused%by"},
    {"q": "größe"},
    {"q": "ÜBERSCHRITTEN"},
    {"q": "ağ geçidi"},
    {"q": "x"},
    {"q": "is"},
    {"q": "-- ,"},
    {"q": "nowhere"},
    {"q": "scan", "source": "192.0.2.7"},
    {"q": "scan", "severity": "critical"},
    {"address": "192.0.2.0/24"},
    {"address": ["2001:db8::/32", "198.51.100.1"]},
    {"source": "192.0.2.7", "destination": "192.0.2.7"},
    {"destination": "10.0.0.0/8"},
    {"source": "0.0.0.0/0"},
]


@pytest.fixture
def side() -> Side:
    return without_entries(Side("ours"))


def without_entries(side: Side) -> Side:
    GroupSearchEntry.objects.all().delete()
    return side


@pytest.fixture
def client(side) -> Client:
    return side.client()


def make_groups(side: Side) -> None:
    for title, source_ip in TITLES.items():
        fields = {"title": title, "source_ip": source_ip, "severity": "low"}
        alert_row(tenant=side.tenant, device=side.device, timestamp=NOW, received_at=NOW, **fields)


def found(client: Client, query: dict, limit: int = 100) -> list[str]:
    answer = client.get(f"/api/v1/groups?{urlencode(query | {'limit': limit}, doseq=True)}")
    assert answer.status_code == 200, answer.content
    return [each["title"] for each in answer.json()["results"]]


@pytest.mark.parametrize("indexed", [0, 4, 100])
@pytest.mark.parametrize("most", [0, 1, 100])
@servers_only
def test_searches_find_the_same_with_and_without_entries(side, client, monkeypatch, indexed, most):
    make_groups(side)
    make_groups(without_entries(Side("theirs")))
    expected = [found(client, query) for query in QUERIES]
    assert [len(titles) for titles in expected[:3]] == [2, 2, 1]
    assert expected[QUERIES.index({"q": "nowhere"})] == []
    monkeypatch.setattr(searching, "STEP_ROWS", indexed)
    monkeypatch.setattr(searching, "MAX_CANDIDATES", most)
    searching.add_entries(waits=True)
    assert GroupSearchEntry.objects.count() >= min(indexed, AlertGroup.objects.count())
    assert [found(client, query) for query in QUERIES] == expected
    assert [found(client, query, limit=1) for query in QUERIES] == [titles[:1] for titles in expected]


@servers_only
def test_searches_without_trigrams_find_the_same(side, client):
    make_groups(side)
    expected = [found(client, query) for query in QUERIES]
    searching.add_entries(waits=True)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("DROP INDEX alert_group_search_words")
        assert [found(client, query) for query in QUERIES] == expected
        transaction.set_rollback(True)


@servers_only
def test_few_groups_are_found_without_reading_the_others(side, client):
    AlertGroup.objects.bulk_create(
        AlertGroup(
            tenant=side.tenant, fingerprint=number.to_bytes(16), title=f"Straw {number}", severity="low", count=1,
            source_ip=f"10.0.{number // 250}.{number % 250}", first_seen_at=NOW, last_seen_at=NOW, last_alert_id=0,
            revision=revision,
        )
        for number, revision in enumerate(next_revisions(5_000))
    )  # fmt: skip
    fields = {"title": "A needle", "severity": "low", "source_ip": "203.0.113.9"}
    alert_row(tenant=side.tenant, device=side.device, timestamp=NOW, received_at=NOW, **fields)
    searching.tidy_entries()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE alert_groups, alert_group_search")
    for query in ({"q": "needle"}, {"address": "203.0.113.9"}):
        with rows_read_of("alert_groups") as groups, rows_read_of("alert_group_search") as entries:
            assert found(client, query) == ["A needle"]
        assert sum(groups) < 20
        assert sum(entries) < 20


@servers_only
def test_stored_groups_get_entries_by_themselves(server, key):
    assert server.post(key, [alert("Port scan", source_ip="192.0.2.7")]).status_code == 204
    deadline = time.monotonic() + 20
    while not GroupSearchEntry.objects.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    [entry] = GroupSearchEntry.objects.all()
    group = AlertGroup.objects.get()
    assert (entry.group_id, entry.tenant_id, entry.title, entry.source_ip) == (
        group.pk, group.tenant_id, "Port scan", "192.0.2.7",
    )  # fmt: skip


@servers_only
def test_two_processes_do_not_add_entries_at_once(side):
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [searching.LOCK])
            assert searching.add_entries() == 0
            cursor.execute("SELECT pg_advisory_unlock(%s)", [searching.LOCK])
        searching.add_entries(waits=True)
        assert GroupSearchEntry.objects.count() == AlertGroup.objects.count()
    finally:
        other.close()


@servers_only
def test_maintenance_makes_the_entries_those_of_the_groups(side, monkeypatch):
    monkeypatch.setattr(searching, "STEP_ROWS", 3)
    make_groups(side)
    searching.tidy_entries()
    ids = list(AlertGroup.objects.order_by("pk").values_list("pk", flat=True))
    assert entry_ids() == ids
    GroupSearchEntry.objects.filter(pk__in=[ids[0], ids[4]]).delete()  # as if they were stored with lower ids
    AlertGroup.objects.filter(pk__in=[ids[1], ids[-1]]).delete()
    assert searching.tidy_entries() == 4
    assert entry_ids() == [pk for pk in ids if pk not in (ids[1], ids[-1])]
    assert searching.tidy_entries() == 0


def entry_ids() -> list[int]:
    return list(GroupSearchEntry.objects.order_by("pk").values_list("pk", flat=True))


@servers_only
def test_the_migration_makes_the_entries_of_stored_groups(side):
    make_groups(side)
    titles = dict(AlertGroup.objects.values_list("pk", "title"))
    executor = MigrationExecutor(connection)
    executor.migrate([("alerts", "0003_console")])
    executor.loader.build_graph()
    executor.migrate(executor.loader.graph.leaf_nodes("alerts"))
    assert dict(GroupSearchEntry.objects.values_list("pk", "title")) == titles


@servers_only
def test_a_role_that_may_not_create_extensions_migrates_without(side):
    migration = importlib.import_module("alerts.migrations.0004_group_search")
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("DROP EXTENSION pg_trgm CASCADE")
            cursor.execute("CREATE ROLE poor")
            cursor.execute("SET LOCAL ROLE poor")
            assert not migration.may_have(connection.schema_editor(), "pg_trgm")
            assert not migration.may_have(connection.schema_editor(), "no_such_extension")
            cursor.execute("RESET ROLE")
            with connection.schema_editor() as editor:
                assert migration.may_have(editor, "pg_trgm")
        transaction.set_rollback(True)


@embedded_only
def test_sqlite_has_no_entries_and_finds_the_same(side, client):
    make_groups(side)
    assert searching.tidy_entries() == 0
    assert found(client, {"q": "SCAN port"}) == ["PORT SCAN, 100% sure", "Port scan from outside"]
    assert found(client, {"address": "192.0.2.0/24", "q": "scan"}) == ["PORT SCAN, 100% sure", "Port scan from outside"]
    assert not GroupSearchEntry.objects.exists()
