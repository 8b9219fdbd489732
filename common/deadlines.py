"""A limit on every wait of a request, with one timer for all: a timer each would take a twentieth of a request."""

import asyncio
from typing import Protocol

from common.loops import PerLoop

LOOK_SECONDS = 1.0  # seconds between checks: a wait may end this much after its deadline


class Waiting(Protocol):
    """A wait that must end by `deadline`, on the event loop's clock."""

    deadline: float

    def give_up(self) -> None:
        """Called once, on the event loop, if the wait has not ended in time."""


class Deadlines:
    """The waits of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Waiting, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, waiting: Waiting) -> None:
        self._waiting[waiting] = None
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def remove(self, waiting: Waiting) -> None:
        """Call this when the wait has ended."""
        self._waiting.pop(waiting, None)

    def _look(self) -> None:
        now = self._loop.time()
        for late in [waiting for waiting in self._waiting if waiting.deadline <= now]:
            self.remove(late)
            late.give_up()
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look) if self._waiting else None


deadlines_of = PerLoop(Deadlines).of
