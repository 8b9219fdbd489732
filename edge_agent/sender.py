"""Delivers batches as a good device does: in order, without losing any, and without useless repeats.

What an answer means for its batch:

* 204: it is stored and can be forgotten.
* No answer, 408, 429, 500, 502, 503, 504: the same bytes are sent again after growing pauses; the server drops repeats.
* 400: the events that the answer names are dropped, the rest is sent.
* 413: it is split in two.
* Anything else: later batches would fare no better, so the sender stops and says why.
"""

import gzip
import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests

from edge_agent.sources import Event

TRY_AGAIN = {408, 429, 500, 502, 503, 504}
LONGEST_RETRY_AFTER_SECONDS = 3600.0  # a proxy with a wrong clock must not stop a device for years
LOST = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


@dataclass(frozen=True)
class Batch:
    """Events and their bytes, encoded once: every attempt sends the same bytes."""

    events: list[Event]
    body: bytes

    def __str__(self) -> str:
        kinds = Counter(event["kind"] for event in self.events)
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        return f"{len(self.events)} event{'s' if len(self.events) > 1 else ''} ({listed}), {len(self.body):,} bytes"


class Sender:
    """A first-in, first-out buffer in memory, and the attempts to empty it.

    `report` is given one line for each attempt. `backoff` is the first pause in seconds; it doubles
    up to `longest_backoff`. `timeout`, in seconds, bounds the wait for an answer.
    """

    def __init__(
        self,
        url: str,
        key: str,
        report: Callable[[str], None],
        *,
        batch_size: int = 100,
        compress: bool = False,
        backoff: float = 1.0,
        longest_backoff: float = 60.0,
        timeout: float = 30.0,
    ) -> None:
        self.url, self.report = url, report
        self.batch_size, self.compress = batch_size, compress
        self.backoff, self.longest_backoff, self.timeout = backoff, longest_backoff, timeout
        self.requests = self.retries = self.acknowledged = self.refused = 0
        self.stopped: str | None = None  # why there will be no further attempt
        self._outbox: deque[Batch] = deque()
        self._failures = 0  # in a row, of the first batch
        self._next_attempt = 0.0
        self._session = requests.Session()
        self._session.headers.update({"X-Device-Key": key, "Content-Type": "application/json"})
        if compress:
            self._session.headers["Content-Encoding"] = "gzip"

    @property
    def buffered(self) -> int:
        """Events that are not acknowledged yet."""
        return sum(len(batch.events) for batch in self._outbox)

    @property
    def pause(self) -> float:
        """Seconds until the next attempt is due."""
        return max(0.0, self._next_attempt - time.monotonic())

    def add(self, events: list[Event]) -> None:
        """Buffer `events`, ordered by timestamp, in batches of at most `batch_size`."""
        ordered = sorted(events, key=lambda event: event["timestamp"])
        for start in range(0, len(ordered), self.batch_size):
            self._outbox.append(self._batch(ordered[start : start + self.batch_size]))

    def attempt(self) -> None:
        """Send the first batch once and do what the answer asks for. For a bad URL, raises the error of `requests`."""
        batch = self._outbox[0]
        self.requests += 1
        self.retries += self._failures > 0
        started = time.monotonic()
        try:
            # Following a redirect would send the key to another address; it is an answer like any other.
            response = self._session.post(self.url, data=batch.body, timeout=self.timeout, allow_redirects=False)
        except LOST as error:
            answer, consequence = f"no answer ({innermost(error)})", self._again_later(0)
        else:
            milliseconds = (time.monotonic() - started) * 1000
            answer, consequence = f"{response.status_code} in {milliseconds:.0f} ms", self._settle(batch, response)
        if self.stopped or not self._outbox:
            # A server may close an idle connection just as our next batch is sent.
            self._session.close()
        self.report(" ".join(filter(None, [f"{batch} → {answer}", consequence])))

    def _settle(self, batch: Batch, response: requests.Response) -> str:
        """Do what the answer asks for, and return that in words."""
        problem = read_problem(response)
        detail = f"{problem.get('code', '')} {problem.get('detail') or response.reason}".strip()
        if response.is_redirect:
            detail += f": the address is wrong, it redirects to {response.headers['Location']}."
        if response.status_code in TRY_AGAIN:
            return f"{detail} {self._again_later(retry_after(response))}"
        self._failures = 0
        if response.status_code == 204:
            self._outbox.popleft()
            self.acknowledged += len(batch.events)
            return ""
        if response.status_code == 400:
            return f"{detail} {self._drop(batch, problem)}"
        if response.status_code == 413:
            return f"{detail} {self._split(batch)}"
        self.stopped = f"{response.status_code} {detail}"
        return f"{detail} Not sent again."

    def _again_later(self, at_least: float) -> str:
        """Keep the batch. The pause is partly random, so that a fleet does not come back all at once."""
        pause = min(self.longest_backoff, self.backoff * 2 ** min(self._failures, 20))
        pause = at_least + pause * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._failures += 1
        self._next_attempt = time.monotonic() + pause
        return f"Retrying in {pause:.1f} s."

    def _drop(self, batch: Batch, problem: dict[str, object]) -> str:
        """Drop the events that the answer names, or all if it names none, and send the rest."""
        errors = problem.get("errors")
        named = [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []
        everything = set(range(len(batch.events)))
        bad = everything & {error["index"] for error in named if isinstance(error.get("index"), int)} or everything
        self._replace_first([event for index, event in enumerate(batch.events) if index not in bad])
        self.refused += len(bad)
        reasons = "; ".join(f"{e.get('index')} {e.get('field')}: {e.get('detail')}" for e in named[:3])
        return f"Dropped {len(bad)}, {len(batch.events) - len(bad)} to go.{f' [{reasons}]' if reasons else ''}"

    def _split(self, batch: Batch) -> str:
        """Send halves. One event alone that is too large is dropped."""
        if len(batch.events) == 1:
            self._replace_first()
            self.refused += 1
            return "Dropped: one event alone is over the limit."
        middle = (len(batch.events) + 1) // 2
        self._replace_first(batch.events[:middle], batch.events[middle:])
        return "Split in two."

    def _replace_first(self, *parts: list[Event]) -> None:
        self._outbox.popleft()
        self._outbox.extendleft(self._batch(part) for part in reversed(parts) if part)

    def _batch(self, events: list[Event]) -> Batch:
        body = json.dumps(events, separators=(",", ":"), ensure_ascii=False).encode()
        return Batch(events, gzip.compress(body, mtime=0) if self.compress else body)


def read_problem(response: requests.Response) -> dict[str, object]:
    """The `application/problem+json` of an answer; empty if it is not JSON, such as a proxy's own answer."""
    if "json" not in response.headers.get("Content-Type", ""):
        return {}
    try:
        problem = response.json()
    except requests.JSONDecodeError:
        return {}
    return problem if isinstance(problem, dict) else {}


def retry_after(response: requests.Response) -> float:
    """Seconds that the answer's `Retry-After` asks for, as a number or a date; 0 without one, at most an hour."""
    value = response.headers.get("Retry-After", "").strip()
    try:
        if value.isdecimal():
            seconds = float(value)
        else:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return 0.0
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_SECONDS)


def innermost(error: BaseException) -> str:
    """What went wrong, without the layers of libraries that passed it on."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__
