"""Emptying the audit's table after a test, which its triggers refuse."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

TABLE = "audit_entries"


@contextmanager
def without_protection() -> Iterator[None]:
    """Within one transaction, the table of the audit can be emptied."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"ALTER TABLE {TABLE} DISABLE TRIGGER USER")
            yield
            cursor.execute(f"ALTER TABLE {TABLE} ENABLE TRIGGER USER")
            return
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s", [TABLE])
        triggers = cursor.fetchall()
        for name, _ in triggers:
            cursor.execute(f"DROP TRIGGER {name}")
        yield
        for _, sql in triggers:
            cursor.execute(sql)


def emptying(empty_tables: Callable[..., Any]) -> Callable[..., Any]:
    """`empty_tables`, Django's own, but with the audit's table too."""

    def empty_all(*arguments: Any) -> Any:
        with transaction.atomic(), without_protection():
            return empty_tables(*arguments)

    return empty_all
