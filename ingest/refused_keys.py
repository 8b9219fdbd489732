"""Requests without a valid device key: counted, and nothing else is kept of them, for anybody can send them."""

import asyncio
import logging

from django.db.models import F
from django.utils import timezone

from ingest.models import RefusedKeyCount
from ingest.queries import run_query

logger = logging.getLogger("ingest")

EVERY = 60.0  # seconds between two writes, however many requests there are


class RefusedKeys:
    """Counts in this process, on its event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def add(self) -> None:
        self._count += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY, self._write_soon)

    def _write_soon(self) -> None:
        self._writing = asyncio.create_task(self.write())

    async def write(self) -> None:
        """Log and store what was counted since the last time. Where that fails it is counted the next time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        count, self._count = self._count, 0
        if not count:
            return
        logger.warning("Refused %d requests without a valid device key in the last minute", count)
        try:
            await run_query(add_to_hour, count)
        except Exception as error:  # noqa: BLE001  a count is not worth more than a line
            logger.error("They could not be counted in the database yet: %r", error)
            self._count += count


def add_to_hour(count: int) -> None:
    RefusedKeyCount.objects.update_or_create(
        hour=timezone.now().replace(minute=0, second=0, microsecond=0),
        defaults={"requests": F("requests") + count},
        create_defaults={"requests": count},
    )


refused_keys = RefusedKeys()
