"""Runs the periodic tasks: in threads of every server process, or apart in `manage.py work`.

No process is the leader. Whoever looks first when a task is due claims it in the database, for a limited time: so
nothing waits for a process that was killed or stopped, and a pooler in between does no harm, as it would to a lock that
belongs to a session. Two processes may still run the same task at once, if one is slower than its limit; tasks must
bear that.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from common.connections import patience
from common.seldom import SeldomLine
from insights.models import LastRun

logger = logging.getLogger(__name__)
database_failed = SeldomLine(logger, logging.WARNING, seconds=60)

LOOK_EVERY = 5.0  # seconds between two looks for what is due
RETRY = timedelta(minutes=1)  # after a failure
STOP_SECONDS = 5.0  # that a task may take to end when its process stops
LATE_AFTER = 3  # times as long as its period may pass between two successes
NEVER_LATE_BEFORE = timedelta(minutes=3)  # another task may have the thread for as long


@dataclass(frozen=True)
class Task:
    """Something to do every so often. It must bear being cut off at any point, and running twice at once."""

    name: str
    run: Callable[[], None]
    every: timedelta
    limit: timedelta = timedelta(minutes=1)  # longer than it ever takes
    is_slow: bool = False  # may take minutes, and must not hold up the others


class Worker:
    """Runs what is due of `tasks`, until it is stopped: the slow ones in one thread, the others in another."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = list(tasks)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for name, is_slow in (("worker", False), ("worker-slow", True)):
            if tasks := [task for task in self._tasks if task.is_slow is is_slow]:
                # A daemon, because a process that stops does not wait for a task.
                self._threads.append(threading.Thread(target=self._run, args=[tasks], name=name, daemon=True))
                self._threads[-1].start()

    def stop(self) -> None:
        """Begin nothing more, and give what is running a moment to end. What is cut off is done again."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(STOP_SECONDS / len(self._threads))

    def _run(self, tasks: Sequence[Task]) -> None:
        while not self._stopping.is_set():
            try:
                for task in tasks:
                    if not self._stopping.is_set():
                        run_if_due(task)
            except Exception as error:  # noqa: BLE001  the database does not respond; whatever it is, look again
                database_failed.write("Periodic tasks wait for the database: %r", error)
            finally:
                connection.close()
            self._stopping.wait(LOOK_EVERY)


def run_if_due(task: Task) -> bool:
    """Run `task` here and now if it is due and no one else runs it. Returns whether it ran, well or not.

    Raises the database's error if it can't be claimed.
    """
    now = timezone.now()
    if not LastRun.objects.filter(task=task.name).exists():
        LastRun.objects.bulk_create([LastRun(task=task.name)], ignore_conflicts=True)
    if not LastRun.objects.claim(task.name, now, task.every, min(RETRY, task.every), task.limit):
        return False
    LastRun.objects.end(task.name, now, timezone.now(), _error_of(task))
    return True


def _error_of(task: Task) -> str:
    """Run `task`, and return why it failed. Its operations on the database may take as long as it may itself."""
    token = patience.set(task.limit.total_seconds())
    try:
        task.run()
    except Exception as error:
        logger.exception("The task “%s” failed", task.name)
        if isinstance(error, OperationalError | InterfaceError):
            connection.close()  # it may be dead
        return f"{type(error).__name__}: {error}"[:1000]
    finally:
        patience.reset(token)
    return ""


def late(tasks: Iterable[Task], now: datetime) -> list[str]:
    """The tasks that failed, or have not succeeded for LATE_AFTER times their period, or ever."""
    runs = {run.task: run for run in LastRun.objects.all()}
    return [task.name for task in tasks if _is_late(task, runs.get(task.name), now)]


def _is_late(task: Task, run: LastRun | None, now: datetime) -> bool:
    if run is None or run.succeeded_at is None:
        return True
    return bool(run.error) or run.succeeded_at < now - max(LATE_AFTER * task.every, NEVER_LATE_BEFORE)
