"""The migration that indexes the events of a batch and the batches of a device."""

import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from ingest import partitions
from ingest.models import IngestEvent
from tests.support.servers import servers_only

pytestmark = pytest.mark.django_db(transaction=True)

INDEX = "ingest_events_batch"


def migrate(name: str) -> None:
    MigrationExecutor(connection).migrate([("ingest", name)])


@pytest.fixture
def before():
    """Without the indexes. Afterwards the database is as the other tests expect it."""
    migrate("0003_counts_by_the_minute")
    yield
    migrate("0004_find_events")


def indexes_of(table: str) -> dict[str, bool]:
    """The names of a table's indexes on batches, and whether each can be used."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_index.indexrelid::regclass::text, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid"
            " WHERE indrelid = %s::regclass AND relam = (SELECT oid FROM pg_am WHERE amname = 'brin')",
            [table],
        )
        return dict(cursor.fetchall())


def tables() -> list[str]:
    return [
        partitions.TABLE,
        f"{partitions.TABLE}_default",
        *(partition.name for partition in partitions.partitions()),
    ]


@servers_only
def test_every_partition_gets_the_index_and_the_whole_can_be_used(before):
    assert not any(indexes_of(table) for table in tables())
    migrate("0004_find_events")
    assert all(list(indexes_of(table).values()) == [True] for table in tables())


@servers_only
def test_a_new_partition_has_the_index_too(transactional_db):
    start = partitions.week_of(timezone.now() + timedelta(weeks=30))
    name = partitions.make(start)
    try:
        assert list(indexes_of(name).values()) == [True]
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE {name}")


@servers_only
def test_an_interrupted_migration_can_be_run_again(before):
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE INDEX {INDEX} ON ONLY {partitions.TABLE} USING brin (batch_id)")
        cursor.execute(f"CREATE INDEX {partitions.TABLE}_default_batch ON {partitions.TABLE}_default (batch_id)")
    migrate("0004_find_events")
    assert all(list(indexes_of(table).values()) == [True] for table in tables())


@servers_only
def test_a_device_can_store_events_while_a_partition_is_indexed(before, store):
    """Building waits for a transaction that has written, and others write meanwhile."""
    store()
    done = threading.Event()

    def index() -> None:
        try:
            partitions.add_index(INDEX, "USING brin (batch_id)")
        finally:
            connection.close()
            done.set()

    with connection.cursor() as cursor:
        cursor.execute(f"CREATE INDEX {INDEX} ON ONLY {partitions.TABLE} USING brin (batch_id)")
        cursor.execute("BEGIN")
        cursor.execute("UPDATE ingest_events SET kind = kind")  # the builder waits until this transaction ends
        thread = threading.Thread(target=index)
        thread.start()
        try:
            assert not done.wait(1)
            store_elsewhere()
        finally:
            cursor.execute("COMMIT")
            thread.join()
    assert all(list(indexes_of(table).values()) == [True] for table in tables())
    assert IngestEvent.objects.count() == 2


def store_elsewhere() -> None:
    """An event, stored by another connection, which waits for no lock."""

    def insert() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '5s'")
                row = IngestEvent.objects.get()
                row.pk = None
                row.save(force_insert=True)
        finally:
            connection.close()

    thread = threading.Thread(target=insert)
    thread.start()
    thread.join()
