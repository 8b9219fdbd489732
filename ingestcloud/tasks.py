"""What the worker does, and how often."""

import logging
from datetime import timedelta

from ingest.maintenance import maintain
from insights.worker import Task

logger = logging.getLogger(__name__)

TASKS = (
    Task(
        "maintain",
        run=lambda: maintain(logger.info),
        every=timedelta(days=1),
        limit=timedelta(hours=1),
        is_slow=True,
    ),
)
