"""What follows a refusal once it is answered: a line in the log, and a rejected batch for staff."""

import asyncio
import logging
from collections import Counter, deque
from typing import Any

from devices.models import Device
from ingest.backlog import DEVICE_FRACTION
from ingest.queries import run_query
from ingest.rejections import Rejection, keep

logger = logging.getLogger(__name__)

LINE_EVERY_SECONDS = 60.0
LINE_CHARACTERS = 300  # an answer may name a hundred errors
MAX_REASONS = 1000  # pairs of device and code that get lines of their own in a minute
MAX_WAITING = 200
MAX_WAITING_BYTES = 16 * 1024 * 1024
DEVICE_WAITING = MAX_WAITING // DEVICE_FRACTION
DEVICE_WAITING_BYTES = MAX_WAITING_BYTES // 4  # not DEVICE_FRACTION: bodies wait whole, and some are megabytes
CLOSE_SECONDS = 5.0


class RefusalLines:
    """One line for each device and code, then one a minute with a count: a device may repeat a batch for hours."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()  # since the last line
        self._timer: asyncio.TimerHandle | None = None

    def add(self, device: Device | None, problem: dict[str, Any]) -> None:
        who = f"{device.tenant.slug}/{device.name}" if device else "an unknown device"
        reason = who, str(problem["code"])
        if reason in self._counts:
            self._counts[reason] += 1
            return
        if len(self._counts) >= MAX_REASONS:
            self._counts["others", "other reasons"] += 1
            return
        self._counts[reason] = 0
        logger.warning("%s", f"Refused a batch from {who}: {_describe(problem)}"[:LINE_CHARACTERS])
        if self._timer is None:
            self._start_timer()

    def _write_counts(self) -> None:
        for (who, code), count in self._counts.items():
            if count:
                logger.warning("Refused %d more from %s in the last minute: %s", count, who, code)
        # Reasons that continue get no first line again.
        self._counts = Counter({reason: 0 for reason, count in self._counts.items() if count})
        self._timer = None
        if self._counts:
            self._start_timer()

    def _start_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LINE_EVERY_SECONDS, self._write_counts)


def _describe(problem: dict[str, Any]) -> str:
    first = next(iter(problem.get("errors", [])), None)
    where = f" Event {first['index']}, {first['field'] or 'as a whole'}: {first['detail']}" if first else ""
    return f"{problem['status']} {problem['code']}. {problem['detail']}{where}"


class RejectionQueue:
    """Rejections waiting to be stored. Their devices have been answered, so no request waits for the database here.

    Bounded, also for each device: rejections that come too fast to be kept are counted in the log.
    """

    def __init__(self) -> None:
        self._waiting: deque[Rejection] = deque()
        self._bytes = 0
        self._dropped = 0  # since the last line
        self._task: asyncio.Task[None] | None = None

    def put(self, rejection: Rejection) -> None:
        size = len(rejection.body)
        sizes = [len(waiting.body) for waiting in self._waiting if waiting.device.pk == rejection.device.pk]
        is_full = len(self._waiting) >= MAX_WAITING or self._bytes + size > MAX_WAITING_BYTES
        has_its_share = len(sizes) >= DEVICE_WAITING or sum(sizes) + size > DEVICE_WAITING_BYTES
        if is_full or (sizes and has_its_share):
            self._dropped += 1
            return
        self._waiting.append(rejection)
        self._bytes += size
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep_all())

    async def _keep_all(self) -> None:
        reason: Exception | None = None
        while self._waiting:
            rejection = self._waiting.popleft()
            self._bytes -= len(rejection.body)
            try:
                await run_query(keep, rejection)
            except Exception as error:  # noqa: BLE001  whatever it is, the next rejection may be kept
                self._dropped += 1
                reason = error
        if self._dropped:
            logger.error("%d rejected batches could not be kept: %s", self._dropped, reason or "they came too fast")
            self._dropped = 0

    async def close(self) -> None:
        """Store the waiting rejections, as many as `CLOSE_SECONDS` allows."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=CLOSE_SECONDS)


refusal_lines = RefusalLines()
rejection_queue = RejectionQueue()
