"""Threads that commit batches, many at a time: while one commit is in progress, the next batches gather."""

import asyncio
import atexit
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, OperationalError, connection
from django.utils import timezone

from alerts.broadcast import broadcast
from alerts.new_alert import NewAlert
from alerts.searching import adding
from common.deadlines import deadlines_of
from devices.models import LAST_USE_EVERY, Device, DeviceKey
from ingest.backlog import BATCH_OVERHEAD_BYTES, backlog
from ingest.batch import Batch
from ingest.errors import UnstorableBatch
from ingest.storing.store import repair_sequences, sequence_watch, store_batches

logger = logging.getLogger(__name__)

GROUP_EVENTS = 2000  # enough to share a commit, few enough to keep its wait short
SHARED_EVENTS = 500  # smaller groups take turns: while one is stored, the next grows, which costs less
STORE_SECONDS = 8.0  # after which a device is told to retry; a commit in progress may still succeed
TURN_SECONDS = 1.0  # how long a group waits for its turn: the group before may be stuck on a dead connection
IDLE_SECONDS = 5.0  # after which a writer gives its connection back

NEVER = datetime.min.replace(tzinfo=UTC)
_noted: dict[int, datetime] = {}  # key ids, and when their use was last noted

broadcasts: set[asyncio.Task[None]] = set()  # the event loop itself keeps only weak references


@dataclass(slots=True, eq=False)
class Job:
    """A batch, and the future that its request waits for, on the request's own event loop."""

    batch: Batch
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[None]"
    deadline: float  # by the loop's clock
    is_settled: bool = False

    @property
    def size(self) -> int:
        """What it adds to the backlog."""
        return self.batch.byte_count + BATCH_OVERHEAD_BYTES

    def give_up(self) -> None:
        if not self.future.done():
            self.future.set_exception(OperationalError("The database did not answer in time."))


class Writer:
    """Accepts batches from any event loop, and stores them in threads with a connection each."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    async def store(self, batch: Batch) -> None:
        """Return once `batch` is committed. Its alerts are broadcast, whether or not its request still waits here.

        Raises DeviceOverloaded or Overloaded if it may not even wait; InvalidDeviceKey or ModuleDisabled if a key or a
        module is off by now; IdempotencyKeyReused or StoredInPart if it is a repeat that can't be acknowledged;
        UnstorableBatch; and the database's error if it fails, or does not answer within `STORE_SECONDS`.
        """
        self._start()
        loop = asyncio.get_running_loop()
        job = Job(batch, loop, loop.create_future(), loop.time() + STORE_SECONDS)
        backlog.acquire(batch.key.device_id, job.size)
        self._jobs.put(job)
        deadlines = deadlines_of(loop)
        deadlines.add(job)
        try:
            await job.future
        finally:
            deadlines.remove(job)

    def _start(self) -> None:
        if self._threads:
            return
        with self._lock:
            if not self._threads:
                # SQLite has one writer; on PostgreSQL one thread prepares a group while the other waits for the disk.
                count = 2 if connection.vendor == "postgresql" else 1
                threads = [threading.Thread(target=self._run, name=f"writer-{n}", daemon=True) for n in range(count)]
                for thread in threads:
                    thread.start()
                self._threads = threads
                atexit.register(self.close)

    def close(self) -> None:
        """Store the waiting batches, then end the threads and their connections."""
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            thread.join()

    def _run(self) -> None:
        is_ending = False
        while not is_ending:
            try:
                job = self._jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                _give_back_connection()
                continue
            is_ending = job is None or self._store_with_others(job)
        _give_back_connection()

    def _store_with_others(self, job: Job) -> bool:
        """Store `job` and the jobs waiting behind it. Returns whether the mark that ends this thread was among them."""
        has_turn = self._turn.acquire(timeout=TURN_SECONDS)
        try:
            group, last = self._gather(job)
            if sum(len(job.batch.events) for job in group) < SHARED_EVENTS:
                _store_in_any_case(group)
                return last
        finally:
            if has_turn:
                self._turn.release()
        _store_in_any_case(group)
        return last

    def _gather(self, first: Job) -> tuple[list[Job], bool]:
        """`first` and the jobs waiting behind it, and whether the mark that ends this thread was among them."""
        group, events = [first], len(first.batch.events)
        while events < GROUP_EVENTS:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return group, True
            group.append(job)
            events += len(job.batch.events)
        return group, False


def _give_back_connection() -> None:
    try:
        connection.close()
    except Exception:
        logger.exception("A writer could not close its connection")


def _store_in_any_case(group: list[Job]) -> None:
    """`_store_group`, but whatever it raises, no request is left waiting, and the thread goes on: none replaces it."""
    try:
        _store_group(group)
    except Exception as error:
        logger.exception("A group of batches could not be stored")
        left = [job for job in group if not job.is_settled]
        _settle(left, [error] * len(left))


def _store_group(group: list[Job], *, again: bool = False) -> None:
    """Store a group of batches in one commit. If that fails, each is tried alone, so that only the bad one fails.

    The group is tried again, once, on a new connection if its own was cut, and with new ids if its ids were taken.
    Repeating is safe: a commit whose answer was lost is found.
    """
    group = _still_awaited(group)
    if not group:
        return
    try:
        sequence_watch.look()
        outcome = store_batches([job.batch for job in group])
    except (OperationalError, InterfaceError) as error:  # no batch's fault, so no use trying each alone
        was_connected = connection.connection is not None
        sequence_watch.look_soon()
        connection.close()
        if was_connected and not again:
            _store_group(group, again=True)
        else:
            _settle(group, [error] * len(group))
    except Exception as error:  # noqa: BLE001  whatever it is, requests wait for it
        if isinstance(error, IntegrityError) and not again and _ids_are_repaired():
            _store_group(group, again=True)
        elif len(group) > 1:
            for job in group:
                _store_group([job])
        else:
            _settle(group, [UnstorableBatch() if isinstance(error, DataError) else error])
    else:
        _settle(group, [outcome.refused.get(index) for index in range(len(group))])
        if outcome.alerts:
            _call_soon(group[0].loop, _broadcast_soon, group[0].loop, outcome.alerts)
        _note_use([job.batch for index, job in enumerate(group) if index not in outcome.refused])


def _ids_are_repaired() -> bool:
    """Repair the sequences, and return whether that was possible: ids that are taken came from one that was behind."""
    try:
        repair_sequences()
    except DatabaseError:
        connection.close()
        return False
    return True


def _still_awaited(group: list[Job]) -> list[Job]:
    """The jobs that a request still waits for. The devices of the others will retry."""
    given_up = {job for job in group if job.future.done()}  # checked once: the loop may give up another meanwhile
    _settle(list(given_up), [None] * len(given_up))
    return [job for job in group if job not in given_up]


def _settle(group: Sequence[Job], errors: Sequence[Exception | None]) -> None:
    """Let the requests continue, each loop's in one call: waking a loop costs more than all the rest."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[None], Exception | None]]] = {}
    for job, error in zip(group, errors, strict=True):
        job.is_settled = True
        backlog.release(job.batch.key.device_id, job.size)
        by_loop.setdefault(job.loop, []).append((job.future, error))
    for loop, settled in by_loop.items():
        _call_soon(loop, _set_results, settled)


def _set_results(settled: list[tuple["asyncio.Future[None]", Exception | None]]) -> None:
    for future, error in settled:
        if future.done():  # the client hung up; what is stored stays stored
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, and nothing waits there any more
        loop.call_soon_threadsafe(function, *arguments)


def _broadcast_soon(loop: asyncio.AbstractEventLoop, alerts: list[NewAlert]) -> None:
    """Broadcast in the background: devices wait for the disk, not for the pages or for what searches need."""
    adding.of(loop).soon()
    task = loop.create_task(broadcast(alerts))
    broadcasts.add(task)
    task.add_done_callback(broadcasts.discard)


def _note_use(batches: list[Batch]) -> None:
    """Note when devices and keys were last seen, once a minute each. A failure must not fail the stored batches."""
    now = timezone.now()
    keys = {batch.key.pk: batch.key for batch in batches if now - _noted.get(batch.key.pk, NEVER) >= LAST_USE_EVERY}
    if not keys:
        return
    _noted.update(dict.fromkeys(keys, now))
    try:
        Device.objects.seen({key.device_id for key in keys.values()}, now)
        DeviceKey.objects.used(keys, now)
    except Exception:
        logger.exception("Could not note when devices were last seen")
        connection.close()


writer = Writer()
