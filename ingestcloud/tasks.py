"""What the worker does, and how often."""

import logging
from datetime import timedelta

from exports.work import continue_exports
from ingest.maintenance import maintain
from insights import usage
from insights.worker import Task

logger = logging.getLogger(__name__)

TASKS = (
    Task("usage", run=usage.count_latest, every=timedelta(minutes=1)),
    Task("exports", run=continue_exports, every=timedelta(seconds=5)),
    Task(
        "usage-recount",
        run=usage.recount_latest,
        every=timedelta(days=1),
        limit=timedelta(hours=1),
        is_slow=True,
    ),
    Task(
        "maintain",
        run=lambda: maintain(logger.info),
        every=timedelta(days=1),
        limit=timedelta(hours=1),
        is_slow=True,
    ),
)
