"""Periodic tasks: each is run when it is due, by one process, and none holds up or stops the others."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from io import StringIO

import httpx
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone

from common.connections import BoundedConnection
from ingestcloud.tasks import TASKS
from insights.models import LastRun
from insights.worker import LATE_AFTER, Task, Worker, late, run_if_due
from tests.support.live import ROOT, test_database_url
from tests.support.servers import servers_only
from tests.support.waiting import wait_for

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def runs() -> list[datetime]:
    """When `hourly` ran."""
    return []


@pytest.fixture
def hourly(runs) -> Task:
    return Task("hourly", run=lambda: runs.append(timezone.now()), every=HOUR)


@pytest.fixture
def broken() -> Task:
    def fail() -> None:
        raise ValueError("out of paper")

    return Task("broken", run=fail, every=HOUR)


def move(**times: timedelta) -> None:
    """Move the times of all last runs, as if the clock had been set the other way."""
    for run in LastRun.objects.all():
        for name, by in times.items():
            setattr(run, name, getattr(run, name) + by)
        run.save()


@pytest.mark.django_db
def test_a_task_runs_at_once_and_then_when_its_period_has_passed(hourly, runs):
    assert run_if_due(hourly)
    assert not run_if_due(hourly)
    move(started_at=timedelta(minutes=-59))
    assert not run_if_due(hourly)
    move(started_at=timedelta(minutes=-2))
    assert run_if_due(hourly)
    assert len(runs) == 2


@pytest.mark.django_db
def test_a_task_that_fails_says_why_and_is_tried_again_after_a_minute(broken, caplog):
    run_if_due(broken)
    run = LastRun.objects.get()
    assert (run.error, run.succeeded_at) == ("ValueError: out of paper", None)
    assert "The task “broken” failed" in caplog.text
    assert not run_if_due(broken)
    move(started_at=-MINUTE)
    assert run_if_due(broken)


@pytest.mark.django_db
def test_a_success_clears_the_error(broken, hourly):
    run_if_due(broken)
    move(started_at=-MINUTE)
    run_if_due(Task("broken", run=hourly.run, every=HOUR))
    run = LastRun.objects.get()
    assert (run.error, run.succeeded_at) == ("", run.started_at)


@pytest.mark.django_db(transaction=True)
def test_of_many_threads_one_runs_the_task(runs):
    together = threading.Barrier(8)

    def work() -> None:
        runs.append(timezone.now())
        time.sleep(0.2)

    def look() -> None:
        together.wait()
        run_if_due(Task("often", run=work, every=timedelta(seconds=0.1)))
        connection.close()

    LastRun.objects.create(task="often")
    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 1


@pytest.mark.django_db
def test_a_run_that_was_cut_off_is_done_again_once_its_limit_has_passed(hourly, runs):
    now = timezone.now()
    LastRun.objects.create(task="hourly", started_at=now, running_until=now + MINUTE)  # and then it was killed
    assert not run_if_due(hourly)
    move(started_at=-2 * MINUTE, running_until=-2 * MINUTE)
    assert run_if_due(hourly)


@pytest.mark.django_db
def test_a_run_that_ends_after_another_took_its_place_changes_nothing(hourly):
    began = timezone.now() - 2 * MINUTE
    LastRun.objects.create(task="hourly", started_at=began, running_until=began + MINUTE)  # and then it was stopped
    run_if_due(hourly)
    LastRun.objects.end("hourly", began, timezone.now(), "I am back")
    assert LastRun.objects.get().error == ""


@pytest.mark.django_db
def test_a_clock_that_was_set_back_does_not_keep_a_task_from_running(hourly, runs):
    run_if_due(hourly)
    move(started_at=24 * HOUR)
    assert run_if_due(hourly)
    assert LastRun.objects.get().started_at <= timezone.now()


@pytest.mark.django_db(transaction=True)
def test_neither_a_slow_nor_a_broken_task_holds_up_the_others(hourly, broken, runs):
    going_on = threading.Event()
    slow = Task("slow", run=lambda: going_on.wait(20) and None, every=HOUR, is_slow=True)
    worker = Worker([slow, broken, hourly])
    worker.start()
    wait_for(lambda: runs)
    going_on.set()
    worker.stop()
    assert LastRun.objects.filter(started_at__isnull=False).count() == 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker")]


@servers_only
@pytest.mark.django_db(transaction=True)
def test_a_task_may_wait_longer_for_the_database_than_a_request(monkeypatch):
    monkeypatch.setattr(BoundedConnection, "seconds", 0.2)

    def sleep() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.5)")

    with pytest.raises(OperationalError, match=r"within 0\.2 seconds"):
        sleep()
    connection.close()
    run_if_due(Task("sleep", run=sleep, every=HOUR))
    assert LastRun.objects.get().error == ""


@pytest.mark.django_db
def test_a_task_is_late_until_it_succeeds_and_when_it_fails_or_stops_running(hourly, broken):
    now = timezone.now()
    assert late([hourly], now) == ["hourly"]
    run_if_due(hourly)
    run_if_due(broken)
    assert late([hourly, broken], now) == ["broken"]
    assert late([hourly], now + (LATE_AFTER - 0.1) * HOUR) == []
    assert late([hourly], now + (LATE_AFTER + 0.1) * HOUR) == ["hourly"]


def test_tasks_have_names_of_their_own():
    assert len({task.name for task in TASKS}) == len(TASKS)


@pytest.mark.django_db
def test_the_command_runs_what_is_due_and_says_what_failed(monkeypatch, hourly, broken):
    monkeypatch.setattr("ingestcloud.management.commands.work.TASKS", (broken, hourly))
    out = StringIO()
    with pytest.raises(CommandError, match="Failed: broken"):
        call_command("work", "--once", stdout=out)
    assert out.getvalue() == "broken: ValueError: out of paper\nhourly: done\n"
    out = StringIO()
    call_command("work", "--once", stdout=out)
    assert out.getvalue() == ""


def test_the_command_runs_all_tasks_until_it_is_told_to_stop(transactional_db):
    environment = os.environ | {"DATABASE_URL": test_database_url()}
    command = [sys.executable, "manage.py", "work"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: not late(TASKS, timezone.now()))
        process.send_signal(signal.SIGTERM)
        _, printed = process.communicate(timeout=15)
    assert (process.returncode, printed) == (0, "")


def test_a_server_runs_the_tasks_and_says_which_are_late(start_server, transactional_db):
    idle = start_server()
    names = ", ".join(task.name for task in TASKS)
    answer = httpx.get(f"{idle.url}/readyz")
    assert (answer.status_code, answer.json()["worker"]) == (200, f"late: {names}")
    working = start_server(WORKER="true")
    wait_for(lambda: httpx.get(f"{idle.url}/readyz").json()["worker"] == "ok")
    working.stop()
    idle.stop()
    assert "Traceback" not in working.log
