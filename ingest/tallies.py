"""Counts by the minute of what is too frequent for a row each: refusals by device, and how long storing took.

Counted in this process and added to what is stored every EVERY_SECONDS. What a killed process had not stored is lost.
"""

import asyncio
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from django.db import connection, models, transaction
from django.utils import timezone

from common.seldom import SeldomLine
from devices.models import Device
from ingest.models import LatencyCount, RefusalCount
from ingest.queries import run_query

K = TypeVar("K", bound=Hashable)

EVERY_SECONDS = 10.0
MAX_KEYS = 50_000  # counted apart between two writes
STEP_ROWS = 1000  # in one statement
KEPT_FOR = timedelta(days=8)
# Milliseconds, the upper ends of what is counted together. Nothing takes longer than the last.
LATENCIES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 1_000_000)

not_stored = SeldomLine(logging.getLogger(__name__), logging.ERROR, seconds=60)


class Tally(Generic[K]):
    """Counts in this process, on its event loop, and hands over the counts every EVERY_SECONDS."""

    def __init__(self, store: Callable[[Counter[K]], None]) -> None:
        self._store = store
        self._counts: Counter[K] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def add(self, key: K) -> None:
        if key in self._counts or len(self._counts) < MAX_KEYS:
            self._counts[key] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_SECONDS, self._write_soon)

    def _write_soon(self) -> None:
        self._writing = asyncio.create_task(self.write())

    async def write(self) -> None:
        """Store what was counted since the last write. If that fails, the next write includes it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            await run_query(self._store, counts)
        except Exception as error:  # noqa: BLE001  counts are worth no more than a line
            not_stored.write("Refusals and latencies could not be counted in the database yet: %r", error)
            self._counts.update(counts)


Refusal = tuple[datetime, int, int, str]  # the minute, device, tenant and code
Latency = tuple[datetime, int]  # the minute, and one of LATENCIES


def _store_refusals(counts: Counter[Refusal]) -> None:
    columns = "minute", "device_id", "tenant_id", "code", "requests"
    _add(RefusalCount, columns, "minute, device_id, code", [(*key, count) for key, count in counts.items()])


def _store_latencies(counts: Counter[Latency]) -> None:
    columns = "minute", "milliseconds", "requests"
    _add(LatencyCount, columns, "minute, milliseconds", [(*key, count) for key, count in counts.items()])


def _add(model: type[models.Model], columns: tuple[str, ...], key: str, rows: list[tuple[Any, ...]]) -> None:
    """Add the requests of `rows` to those that `model` has under the same `key`.

    In a fixed order, so that two processes do not wait for each other's rows in a circle.
    """
    table, marks = model._meta.db_table, f"({', '.join(['%s'] * len(columns))})"
    rows = sorted((connection.ops.adapt_datetimefield_value(minute), *rest) for minute, *rest in rows)
    with transaction.atomic(), connection.cursor() as cursor:
        for start in range(0, len(rows), STEP_ROWS):
            step = rows[start : start + STEP_ROWS]
            cursor.execute(
                f"""INSERT INTO {table} ({", ".join(columns)}) VALUES {", ".join([marks] * len(step))}
                        ON CONFLICT ({key}) DO UPDATE SET requests = {table}.requests + excluded.requests""",  # noqa: S608
                [value for row in step for value in row],
            )


refusals: Tally[Refusal] = Tally(_store_refusals)
latencies: Tally[Latency] = Tally(_store_latencies)


def count_refusal(device: Device, code: str) -> None:
    """Count a refused batch of `device`, or a lenient one of which events were left out."""
    refusals.add((_this_minute(), device.pk, device.tenant_id, code))


def count_latency(seconds: float) -> None:
    """Count a stored batch, by the time from its last byte until it was on disk."""
    latencies.add((_this_minute(), LATENCIES[bisect_left(LATENCIES, seconds * 1000)]))


def _this_minute() -> datetime:
    return timezone.now().replace(second=0, microsecond=0)


def delete_expired(now: datetime) -> None:
    """Delete what is older than KEPT_FOR."""
    for model in (RefusalCount, LatencyCount):
        model._default_manager.filter(minute__lt=now - KEPT_FOR).delete()
