"""`manage.py simulate_edge`: an edge agent on this machine."""

import os
import signal
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from typing import Any

import requests
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, OutputWrapper

from devices.edge.sender import Sender
from devices.edge.sources import Event, Telemetry, discover_self, log_sources, sample_alerts, sample_backups

MOST_BUFFERED = 100_000  # events; some 20 MB. Beyond it nothing is read, so that log lines wait in their files.


def positive(convert: Callable[[str], float]) -> Callable[[str], float]:
    """An argument that is a number above zero."""

    def parse(text: str) -> float:
        value = convert(text)
        if not value > 0:
            raise ArgumentTypeError("must be above zero")
        return value

    return parse


class Command(BaseCommand):
    help = (
        "Send this machine's telemetry, log lines and addresses as an edge device would, and sample alerts and "
        "backup events on request. Exit status 1 where something was refused or not delivered."
    )
    requires_system_checks = ()  # a device knows nothing of the site's settings

    def add_arguments(self, parser: ArgumentParser) -> None:
        port = os.environ.get("PORT") or "8000"
        parser.add_argument("--url", default=f"http://127.0.0.1:{port}", help="address of the site")
        parser.add_argument("--key", help="device key (default: DEVICE_KEY, else the demo's)")
        parser.add_argument("--interval", type=positive(float), default=5, help="seconds from batch to batch")
        parser.add_argument("--batches", type=positive(int), help="stop after so many (default: go on)")
        parser.add_argument("--batch-size", type=positive(int), default=100, help="events a request has at most")
        parser.add_argument("--alerts", type=int, default=0, help="send so many sample security alerts")
        parser.add_argument("--backups", type=int, default=0, help="send so many sample backup jobs")
        parser.add_argument("--gzip", action="store_true", help="compress what is sent")

    def handle(self, *args: Any, **options: Any) -> None:
        key = options["key"] or os.environ.get("DEVICE_KEY") or settings.DEMO_DEVICE_KEY
        if not key:
            raise CommandError("No device key: give --key or DEVICE_KEY. `manage.py create_device` makes one.")
        console = Console(self.stdout)
        url = options["url"].rstrip("/") + "/v1/ingest"
        sender = Sender(url, key, console.line, batch_size=options["batch_size"], compress=options["gzip"])
        agent = Agent(sender, options["interval"], options["batches"])
        agent.collect_once(sample_alerts(options["alerts"]) + sample_backups(options["backups"]) + discover_self())
        handler = signal.signal(signal.SIGINT, agent.interrupt)
        try:
            agent.run(lambda: console.progress(describe(sender)))
        except KeyboardInterrupt:
            console.line("Interrupted.")
        except (requests.RequestException, ValueError) as error:
            raise CommandError(f"Can't send to {url}: {error}") from error
        finally:
            signal.signal(signal.SIGINT, handler)
        console.line(describe(sender))
        self._judge(sender)

    def _judge(self, sender: Sender) -> None:
        """Raise CommandError unless everything was delivered."""
        if sender.stopped:
            raise CommandError(f"Stopped, {sender.buffered} events not delivered: {sender.stopped}")
        if sender.refused or sender.buffered:
            raise CommandError(f"{sender.refused} events were refused, {sender.buffered} not delivered.")


class Agent:
    """Reads the sources every `interval` seconds, also while the site is away; sends whenever it may.

    `rounds` is how often it reads; None is for ever. What was read is sent before it ends.
    """

    def __init__(self, sender: Sender, interval: float, rounds: int | None) -> None:
        self.sender, self.interval, self.rounds = sender, interval, rounds
        self._telemetry, self._logs = Telemetry(), log_sources()
        self._extra: list[Event] = []
        self._next_round = time.monotonic()
        self._interrupted = False

    def interrupt(self, *args: object) -> None:
        """The handler of Ctrl-C. An exception alone is lost where Python happens to be in a finalizer."""
        self._interrupted = True
        raise KeyboardInterrupt

    def collect_once(self, events: list[Event]) -> None:
        """Let `events` go with the first round."""
        self._extra += events

    def run(self, progress: Callable[[], None]) -> None:
        """Go on until the rounds are over and all is sent, or the sender stops. Calls `progress` after each step."""
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
        if self.sender.buffered < MOST_BUFFERED:
            events = self._telemetry.read() + [event for source in self._logs for event in source.read()]
            self.sender.add(events + self._extra)
            self._extra = []
            self.rounds = self.rounds and self.rounds - 1

    def _idle(self) -> float:
        """Seconds until there is something to do."""
        waits = [max(0.0, self._next_round - time.monotonic())] if self.rounds != 0 else []
        return min(waits + ([self.sender.pause] if self.sender.buffered else []))


def describe(sender: Sender) -> str:
    return (
        f"{sender.requests} requests, {sender.retries} of them retries · events: {sender.acknowledged} acknowledged, "
        f"{sender.buffered} buffered, {sender.refused} refused"
    )


class Console:
    """Lines, and on a terminal below them one that is always up to date."""

    def __init__(self, stdout: OutputWrapper) -> None:
        self._stdout = stdout
        self._erase = "\r\x1b[K" if stdout.isatty() else ""

    def line(self, text: str) -> None:
        self._stdout.write(f"{self._erase}{text}")
        self._stdout.flush()  # also into a pipe or a file, line by line

    def progress(self, text: str) -> None:
        if self._erase:
            self._stdout.write(f"{self._erase}{text}", ending="")
            self._stdout.flush()
