"""The agent's command line, for `python -m edge_agent` and `manage.py simulate_edge`."""

import os
import signal
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import Protocol

import requests

from edge_agent.agent import Agent
from edge_agent.sender import Sender
from edge_agent.sources import discover_self, sample_alerts, sample_backups

DESCRIPTION = (
    "Send this machine's telemetry, log lines and addresses as an edge device would, and sample alerts and "
    "backup events on request. Exit status 1 if something was refused or not delivered."
)
DEFAULT_BATCHES = 12  # at the default interval, one minute


class NotDelivered(Exception):  # noqa: N818  it says what happened, and is shown to a person
    """Something was refused, not delivered, or could not be tried."""


class Output(Protocol):
    """Where lines are written, such as sys.stdout."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...
    def isatty(self) -> bool: ...


def positive(convert: Callable[[str], float]) -> Callable[[str], float]:
    """An argument that is a number above zero."""

    def parse(text: str) -> float:
        value = convert(text)
        if not value > 0:
            raise ArgumentTypeError("must be above zero")
        return value

    return parse


def count(text: str) -> int:
    """An argument that is zero or more."""
    value = int(text)
    if value < 0:
        raise ArgumentTypeError("must not be negative")
    return value


def add_arguments(parser: ArgumentParser) -> None:
    port = os.environ.get("PORT") or "8000"
    parser.add_argument("--url", default=f"http://127.0.0.1:{port}", help="address of the site")
    parser.add_argument("--key", help="device key (default: DEVICE_KEY)")
    parser.add_argument("--interval", type=positive(float), default=5, help="seconds between batches (default: 5)")
    parser.add_argument(
        "--batches",
        type=count,
        default=DEFAULT_BATCHES,
        help=f"stop after this many, when all are delivered (default: {DEFAULT_BATCHES}); 0: run until Ctrl-C",
    )
    parser.add_argument("--batch-size", type=positive(int), default=100, help="most events in a request (default: 100)")
    parser.add_argument("--alerts", type=count, default=0, help="number of sample security alerts to send")
    parser.add_argument("--backups", type=count, default=0, help="number of sample backup jobs to send")
    parser.add_argument("--gzip", action="store_true", help="compress what is sent")


def run(options: Namespace, output: Output, default_key: str = "") -> None:
    """Run the agent as `options` say. Raises NotDelivered."""
    key = options.key or os.environ.get("DEVICE_KEY") or default_key
    if not key:
        raise NotDelivered("No device key: pass --key or set DEVICE_KEY. `manage.py create_device` creates one.")
    console = Console(output)
    url = options.url.rstrip("/") + "/v1/ingest"
    sender = Sender(url, key, console.line, batch_size=options.batch_size, compress=options.gzip)
    agent = Agent(sender, options.interval, options.batches or None)
    agent.collect_once(sample_alerts(options.alerts) + sample_backups(options.backups) + discover_self())
    handler = signal.signal(signal.SIGINT, agent.interrupt)
    try:
        agent.run(lambda: console.progress(describe(sender)))
    except KeyboardInterrupt:
        console.line("Interrupted.")
    except (requests.RequestException, ValueError) as error:
        raise NotDelivered(f"Can't send to {url}: {error}") from error
    finally:
        signal.signal(signal.SIGINT, handler)
    console.line(describe(sender))
    check_delivered(sender)


def check_delivered(sender: Sender) -> None:
    """Raise NotDelivered unless everything was acknowledged."""
    if sender.stopped:
        raise NotDelivered(f"Stopped, {sender.buffered} events not delivered: {sender.stopped}")
    if sender.refused or sender.buffered:
        raise NotDelivered(f"{sender.refused} events were refused, {sender.buffered} not delivered.")


def describe(sender: Sender) -> str:
    return (
        f"{sender.requests} requests, {sender.retries} of them retries · events: {sender.acknowledged} acknowledged, "
        f"{sender.buffered} buffered, {sender.refused} refused"
    )


class Console:
    """Writes lines and, on a terminal, a progress line below them."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._erase = "\r\x1b[K" if output.isatty() else ""

    def line(self, text: str) -> None:
        self._output.write(f"{self._erase}{text}\n")
        self._output.flush()  # even into a pipe or a file, line by line

    def progress(self, text: str) -> None:
        if self._erase:
            self._output.write(f"{self._erase}{text}")
            self._output.flush()
