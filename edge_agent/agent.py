"""Reads the sources and sends their events, in turn."""

import time
from collections.abc import Callable

from edge_agent.sender import Sender
from edge_agent.sources import Event, Telemetry, log_sources

MAX_BUFFERED_EVENTS = 100_000  # about 20 MB. Beyond that nothing is read, so that log lines wait in their files


class Agent:
    """Reads the sources every `interval` seconds, even while the site is down; sends whenever it may.

    `rounds` is how often it reads; None means until it is interrupted. All events read are sent before it ends.
    """

    def __init__(self, sender: Sender, interval: float, rounds: int | None) -> None:
        self.sender, self.interval, self.rounds = sender, interval, rounds
        self._telemetry, self._logs = Telemetry(), log_sources()
        self._extra: list[Event] = []
        self._next_round = time.monotonic()
        self._interrupted = False

    def interrupt(self, *args: object) -> None:
        """The handler of Ctrl-C. An exception alone is lost if Python happens to be in a finalizer."""
        self._interrupted = True
        raise KeyboardInterrupt

    def collect_once(self, events: list[Event]) -> None:
        """Send `events` with the first round."""
        self._extra += events

    def run(self, progress: Callable[[], None]) -> None:
        """Run until all rounds are done and all events sent, or the sender stops. Calls `progress` after each step."""
        while not self.sender.stopped and (self.rounds != 0 or self.sender.buffered):
            if self.rounds != 0 and time.monotonic() >= self._next_round:
                self._collect()
            elif self.sender.buffered and not self.sender.pause:
                self.sender.attempt()
            else:
                time.sleep(self._idle())
            progress()
            if self._interrupted:
                raise KeyboardInterrupt

    def _collect(self) -> None:
        self._next_round = time.monotonic() + self.interval
        if self.sender.buffered < MAX_BUFFERED_EVENTS:
            events = self._telemetry.read() + [event for source in self._logs for event in source.read()]
            self.sender.add(events + self._extra)
            self._extra = []
            self.rounds = self.rounds and self.rounds - 1  # None stays None

    def _idle(self) -> float:
        """Seconds until there is something to do."""
        waits = [max(0.0, self._next_round - time.monotonic())] if self.rounds != 0 else []
        return min(waits + ([self.sender.pause] if self.sender.buffered else []))
