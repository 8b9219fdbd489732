"""When each periodic task last ran."""

from datetime import datetime, timedelta
from typing import Any

from django.db import models
from django.db.models import Q

SKEW = timedelta(minutes=1)  # by which the clocks of two machines may differ


class LastRunQuerySet(models.QuerySet[Any]):
    def claim(self, task: str, now: datetime, every: timedelta, retry: timedelta, limit: timedelta) -> bool:
        """Note that `task` begins, if it is due and not running. A single update, so of two processes one gets it.

        A run that has not ended within `limit` was cut off, and is done again. A time in the future is from before a
        clock was set back.
        """
        is_due = Q(started_at=None) | Q(started_at__lte=now - every) | ~Q(error="") & Q(started_at__lte=now - retry)
        was_cut_off = Q(running_until__lte=now)
        is_ahead = Q(started_at__gt=now + SKEW)
        may_run = Q(running_until=None) & is_due | was_cut_off | is_ahead
        return bool(self.filter(may_run, task=task).update(started_at=now, running_until=now + limit))

    def end(self, task: str, started_at: datetime, ended_at: datetime, error: str) -> None:
        """Note how the run that began at `started_at` ended. If another has begun since, only a success counts."""
        run = self.filter(task=task)
        if not error:
            run.exclude(succeeded_at__range=(started_at, ended_at)).update(succeeded_at=started_at)
        ended = {"running_until": None, "error": error, "took": ended_at - started_at}
        run.filter(started_at=started_at).update(**ended)


class LastRun(models.Model):
    """The last run of a periodic task, by whichever process."""

    task = models.CharField(max_length=40, primary_key=True)
    started_at = models.DateTimeField(null=True)
    running_until = models.DateTimeField(null=True, help_text="Null if it has ended.")
    succeeded_at = models.DateTimeField(null=True, help_text="When the last run that did not fail began.")
    took = models.DurationField(null=True)
    error = models.TextField(default="", help_text="Why the last run failed, empty if it did not.")

    objects = LastRunQuerySet.as_manager()

    class Meta:
        db_table = "worker_runs"
        ordering = ["task"]

    def __str__(self) -> str:
        return self.task
