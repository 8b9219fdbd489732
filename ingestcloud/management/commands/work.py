"""`manage.py work`."""

import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ingestcloud.tasks import TASKS
from insights.models import LastRun
from insights.worker import Worker, run_if_due


class Command(BaseCommand):
    help = (
        "Run the periodic tasks until SIGTERM or Ctrl-C. Servers do that themselves, unless WORKER is false."
        " Any number of processes may do it: each task is run by one of them."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="run what is due now, one after the other, and end")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["once"]:
            self.run_once()
        else:
            self.run_until_stopped()

    def run_once(self) -> None:
        """Raises CommandError, and so exits with 1, if a task failed."""
        ran = [task.name for task in TASKS if run_if_due(task)]
        for run in LastRun.objects.filter(task__in=ran):
            self.stdout.write(f"{run.task}: {run.error or 'done'}")
        if failed := LastRun.objects.filter(task__in=ran).exclude(error="").values_list("task", flat=True):
            raise CommandError(f"Failed: {', '.join(failed)}")

    def run_until_stopped(self) -> None:
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        worker = Worker(TASKS)
        worker.start()
        stopping.wait()
        worker.stop()
