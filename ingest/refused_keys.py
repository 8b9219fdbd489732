"""Counts requests without a valid device key. Nothing else is kept of them, because anyone can send them."""

import asyncio
import logging
from collections import Counter

from django.db.models import F
from django.utils import timezone

from ingest.models import RefusedKeyCount
from ingest.queries import run_query

logger = logging.getLogger(__name__)

EVERY_SECONDS = 60.0  # between two writes, however many requests there are
MAX_ADDRESSES = 1000  # counted separately
ADDRESSES_NAMED = 5


class RefusedKeys:
    """Counts in this process, on its event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._sources: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def add(self, source: str | None) -> None:
        self._count += 1
        source = source or "an unknown address"
        if source in self._sources or len(self._sources) < MAX_ADDRESSES:
            self._sources[source] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_SECONDS, self._write_soon)

    def _write_soon(self) -> None:
        self._writing = asyncio.create_task(self.write())

    async def write(self) -> None:
        """Log and store the count since the last write. If storing it fails, the next write includes it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        count, self._count = self._count, 0
        if not count:
            return
        sources, self._sources = self._sources, Counter()
        logger.warning("Refused %d requests without a valid device key in the last minute, %s", count, _name(sources))
        try:
            await run_query(add_to_hour, count)
        except Exception as error:  # noqa: BLE001  a count is worth no more than a line
            logger.error("Refused requests could not be counted in the database yet: %r", error)
            self._count += count


def _name(sources: Counter[str]) -> str:
    """The addresses that most requests came from. If storing a count failed, its addresses are already logged."""
    named = [f"{source} ({count})" for source, count in sources.most_common(ADDRESSES_NAMED)]
    others = f" and {len(sources) - len(named)} other addresses" if len(sources) > len(named) else ""
    return f"from {', '.join(named)}{others}" if named else "from addresses already logged"


def add_to_hour(count: int) -> None:
    RefusedKeyCount.objects.update_or_create(
        hour=timezone.now().replace(minute=0, second=0, microsecond=0),
        defaults={"requests": F("requests") + count},
        create_defaults={"requests": count},
    )


refused_keys = RefusedKeys()
