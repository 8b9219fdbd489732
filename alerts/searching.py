"""Which groups may match a search for words and addresses, from the entries that are kept for searching.

A group gets its entry a moment after it is stored, in the background, so that no device waits for the indexes. Groups
that have none as yet have higher ids than all that have one, because ids are in the order of commits.
"""

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from django.db import connection, transaction
from django.db.models import Q

from alerts.models import GroupSearchEntry
from common.database import QueryThreads
from common.loops import PerLoop
from common.seldom import SeldomLine
from tenants.isolation import bypass_isolation

MAX_CANDIDATES = 2000  # so many groups are read quickly; more are found quickly by reading the latest
STEP_ROWS = 2000  # entries that one transaction adds
DELAY = 1.0  # seconds
REST = 4.0  # times as long as a step took: storing needs the database too
LOCK = 0x5EC_F111  # an advisory lock: one process adds entries, and the others need not

TRIGRAM = re.compile(r"[^\W_]{3}")  # what a word must have for the index of trigrams to lead to it
NEWEST = """
SELECT coalesce(max(group_id), 0), to_regclass('alert_group_search_words') IS NOT NULL FROM alert_group_search
"""
ADD_NEXT = """
INSERT INTO alert_group_search (group_id, tenant_id, title, source_ip, destination_ip)
SELECT id, tenant_id, title, source_ip, destination_ip FROM alert_groups
 WHERE id > (SELECT coalesce(max(group_id), 0) FROM alert_group_search) ORDER BY id LIMIT %s
"""
ADD_MISSING = """
INSERT INTO alert_group_search (group_id, tenant_id, title, source_ip, destination_ip)
SELECT id, tenant_id, title, source_ip, destination_ip FROM alert_groups
 WHERE id > %s AND id <= %s AND NOT EXISTS (SELECT FROM alert_group_search WHERE group_id = id)
"""
DELETE_LEFT = """
DELETE FROM alert_group_search
 WHERE group_id > %s AND group_id <= %s AND NOT EXISTS (SELECT FROM alert_groups WHERE id = group_id)
"""

failed = SeldomLine(logging.getLogger(__name__), logging.WARNING)
run_query = QueryThreads("search-entries", 1).run


class Candidates(NamedTuple):
    """The only groups that may match."""

    ids: list[int]
    after: int  # and any with a higher id than this


@dataclass(frozen=True)
class Search:
    """What the title and the addresses of a group must meet."""

    addresses: Q
    words: Sequence[str] = ()

    @property
    def condition(self) -> Q:
        """On groups, and on their entries."""
        return self.addresses & Q(*(Q(title__icontains=word) for word in self.words))

    def candidates(self, tenant_id: int | None) -> Candidates | None:
        """The groups of a tenant, or of all. None if they are many, or if no index leads to them.

        Call it without isolation, behind which PostgreSQL uses no index (see `GroupFilter.find`).
        """
        has_trigrams = any(TRIGRAM.search(word) for word in self.words)
        if connection.vendor != "postgresql" or not (self.addresses or has_trigrams):
            return None
        with connection.cursor() as cursor:
            cursor.execute(NEWEST)
            newest, indexes_words = cursor.fetchone()
        if not (self.addresses or indexes_words):
            return None
        entries = GroupSearchEntry.objects.filter(self.condition)
        if tenant_id is not None:
            entries = entries.filter(tenant=tenant_id)
        ids = list(entries.values_list("pk", flat=True)[: MAX_CANDIDATES + 1])
        return Candidates(ids, newest) if len(ids) <= MAX_CANDIDATES else None


def add_entries(*, waits: bool = False) -> int:
    """Add the entries of the next groups, and return how many. While another process does it, wait or add none."""
    lock = "pg_advisory_xact_lock" if waits else "pg_try_advisory_xact_lock"
    with bypass_isolation(), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SELECT {lock}(%s)", [LOCK])
        if cursor.fetchone()[0] is False:
            return 0
        cursor.execute(ADD_NEXT, [STEP_ROWS])
        return cursor.rowcount


def tidy_entries() -> int:
    """Add all entries that are missing and delete those whose group was deleted. Returns how many it changed."""
    if connection.vendor != "postgresql":
        return 0
    count, last = 0, 0
    while added := add_entries(waits=True):
        count += added
    while step := list(
        GroupSearchEntry.objects.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:STEP_ROWS]
    ):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            for statement in (ADD_MISSING, DELETE_LEFT):
                cursor.execute(statement, [last, step[-1]])
                count += cursor.rowcount
        last = step[-1]
    return count


class Adding:
    """Adds the entries of new groups in the background of an event loop, seldom and slowly."""

    def __init__(self) -> None:
        self._asked = False
        self._task: asyncio.Task[None] | None = None

    def soon(self) -> None:
        """Alerts were stored. To be called in the event loop."""
        self._asked = connection.vendor == "postgresql"
        if self._asked and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._add_all())

    async def _add_all(self) -> None:
        rest = DELAY
        while self._asked:
            await asyncio.sleep(rest)
            self._asked = False
            began = time.monotonic()
            try:
                self._asked |= await run_query(add_entries) == STEP_ROWS
            except Exception as error:  # noqa: BLE001  searches find these groups too, and the next alert tries again
                failed.write("New groups can be searched only slowly: %r", error)
            rest = max(DELAY / 10, REST * (time.monotonic() - began)) if self._asked else DELAY


adding = PerLoop(lambda _: Adding())
