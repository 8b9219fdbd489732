"""The partitions of `ingest_events` on PostgreSQL: one for each week of `received_at`.

Partitions are created ahead, and dropped whole once nothing in them must be kept. An event whose week has no partition
goes into the default one, so no event is ever refused. On other databases there are no partitions, and the functions
here do nothing.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.backends.utils import CursorWrapper

T = TypeVar("T")

TABLE = "ingest_events"
WEEK = timedelta(weeks=1)
WEEKS_AHEAD = 4  # weeks: maintenance may fail for a month
LOCK_SECONDS = 2  # longest time that devices wait behind us, while we wait for a long query
LOCK_TRIES = 5
MAINTENANCE_LOCK = 0x5EC_C1EA2  # an advisory lock: two processes may run `maintain` at once


class TableBusy(Exception):  # noqa: N818  PostgreSQL calls it lock_not_available, and nothing here is at fault
    """Long queries hold the table locked. Trying again is safe at any time."""

    def __init__(self) -> None:
        super().__init__(f"Long queries hold {TABLE}: its partitions are left for the next run.")


@dataclass(frozen=True, slots=True)
class Partition:
    """A table with the events received from `start` until before `end`."""

    name: str
    start: datetime
    end: datetime


def week_of(moment: datetime) -> datetime:
    """The Monday, 0:00 UTC, on which the week of `moment` begins."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


def partitions() -> list[Partition]:
    """The partitions in order of time, without the default one."""
    if connection.vendor != "postgresql":
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT child.relname, pg_get_expr(child.relpartbound, child.oid) FROM pg_inherits"
            " JOIN pg_class AS child ON child.oid = inhrelid WHERE inhparent = %s::regclass",
            [TABLE],
        )
        # A partition without a bound is being dropped at this moment.
        bounds = [(name, re.findall(r"'([^']+)'", bound or "")) for name, bound in cursor.fetchall()]
    found = [Partition(name, *map(datetime.fromisoformat, both)) for name, both in bounds if both]
    return sorted(found, key=lambda partition: partition.end)


def make_ahead(now: datetime) -> list[str]:
    """Make the missing partitions for this week and the next ones, and return their names.

    A week that already has events in the default partition stays there. Raises TableBusy.
    """
    if connection.vendor != "postgresql":
        return []
    ends = {partition.end for partition in partitions()}
    starts = [week_of(now) + n * WEEK for n in range(WEEKS_AHEAD + 1)]
    return [made for start in starts if start + WEEK not in ends if (made := make(start))]


def make(start: datetime) -> str | None:
    """Make the partition of the week from `start`, and return its name.

    Returns None if there is one, or if the default partition has events of that week. Raises TableBusy.
    """
    name = f"{TABLE}_{start:%Y%m%d}"

    def attach() -> str | None:
        with connection.cursor() as cursor:
            if _exists(cursor, name):
                return None
            # CREATE TABLE … PARTITION OF would lock out every reader and writer of the whole table.
            cursor.execute(f"CREATE TABLE {name} (LIKE {TABLE} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
            cursor.execute(
                f"ALTER TABLE {TABLE} ATTACH PARTITION {name} FOR VALUES FROM (%s) TO (%s)", [start, start + WEEK]
            )
        return name

    try:
        return _with_lock(attach)
    except IntegrityError:  # the default partition has events of that week
        return None


def _exists(cursor: CursorWrapper, name: str) -> bool:
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [name])
    return cursor.fetchone()[0]


def add_index(name: str, how: str) -> None:
    """Build an index on PostgreSQL while devices write into the table: it may take as long as reading the table.

    `how` is its definition in SQL. Can be run again if it was interrupted. Raises TableBusy.
    """

    def add_to_parent() -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE INDEX IF NOT EXISTS {name} ON ONLY {TABLE} {how}")

    # The table first: from here on, partitions that `make` attaches get the index.
    _with_lock(add_to_parent)
    for partition in _without_index(name):
        part = f"{partition}_{name.removeprefix(TABLE + '_')}"
        with connection.cursor() as cursor:
            cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {part}")
            cursor.execute(f"CREATE INDEX CONCURRENTLY {part} ON {partition} {how}")
        _with_lock(partial(_attach_index, name, part))


def _without_index(name: str) -> list[str]:
    """The partitions that have no part of the index."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT partition.inhrelid::regclass::text FROM pg_inherits AS partition"
            " WHERE inhparent = %s::regclass AND NOT EXISTS (SELECT 1 FROM pg_inherits AS part JOIN pg_index"
            " ON indexrelid = part.inhrelid WHERE part.inhparent = %s::regclass AND indrelid = partition.inhrelid)"
            " ORDER BY 1",
            [TABLE, name],
        )
        return [partition for (partition,) in cursor.fetchall()]


def _attach_index(name: str, part: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER INDEX {name} ATTACH PARTITION {part}")


def drop_index(name: str) -> None:
    """Drop an index of all partitions on PostgreSQL. Raises TableBusy."""

    def drop_all() -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP INDEX IF EXISTS {name}")

    _with_lock(drop_all)


def drop(partition: Partition, *, only_if_empty: bool = False) -> bool:
    """Drop `partition` with all its rows, and return whether that was done. Raises TableBusy."""

    def drop_table() -> bool:
        with connection.cursor() as cursor:
            if not _exists(cursor, partition.name) or (only_if_empty and not _is_empty(cursor, partition.name)):
                return False
            cursor.execute(f"DROP TABLE {partition.name}")
        return True

    return _with_lock(drop_table)


def _is_empty(cursor: CursorWrapper, name: str) -> bool:
    cursor.execute(f"SELECT NOT EXISTS (SELECT 1 FROM {name})")  # noqa: S608
    return cursor.fetchone()[0]


def in_default() -> bool:
    """Whether the default partition has events: it was not maintained for weeks, or a clock is wrong."""
    if connection.vendor != "postgresql":
        return False
    with connection.cursor() as cursor:
        return not _is_empty(cursor, f"{TABLE}_default")


def _with_lock(change: Callable[[], T]) -> T:
    """Run `change`, which needs a lock that a long query may hold: devices queue behind us, so wait briefly."""
    for _ in range(LOCK_TRIES):
        try:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_advisory_xact_lock(%s)", [MAINTENANCE_LOCK])
                    cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
                return change()
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", None) != "55P03":  # lock_not_available
                raise
            time.sleep(LOCK_SECONDS)  # let the devices that waited behind us through
    raise TableBusy
