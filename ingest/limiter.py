"""Limits the events a second that each device may send, with token buckets in this process."""

import time

from django.conf import settings

from devices.models import Device
from ingest.batch import Batch
from ingest.errors import RateLimited

ALERTS_FACTOR = 10  # a device may send this many times as many alerts as other events,
ALERTS_PER_SECOND, ALERTS_BURST = 10, 1000  # and at least this many
ALERT_KIND = b"security_alert"
EVENT_BYTES = 1024  # of a refused body: reading them costs at least as much as an event


class Bucket:
    """Holds up to `burst` tokens, gains `rate` tokens a second, and loses one for each event.

    A batch is admitted while the bucket is not empty, and may leave it in debt: so no batch is too large for it. (The
    buckets of `common.buckets`, for requests, never are.)
    """

    def __init__(self, rate: int, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self._tokens, self._then = float(burst), time.monotonic()

    def wait(self) -> float:
        """Seconds until it is not empty; 0 if it is not empty now."""
        now = time.monotonic()
        self._tokens = min(self.burst, self._tokens + (now - self._then) * self.rate)
        self._then = now
        return 0.0 if self._tokens > 0 else (1 - self._tokens) / self.rate

    def take(self, count: int) -> None:
        self._tokens -= count


class Allowance:
    """The buckets of a device: one for its alerts, so that they get through, and one for all other events."""

    def __init__(self, rate: int, burst: int) -> None:
        self.limits = rate, burst
        self.events = Bucket(rate, burst)
        self.alerts = Bucket(max(ALERTS_FACTOR * rate, ALERTS_PER_SECOND), max(ALERTS_FACTOR * burst, ALERTS_BURST))

    def admit(self, body: bytes) -> None:
        """Raises RateLimited if no event that `body` may have could be admitted: then it need not be checked."""
        if (wait := self.events.wait()) and (ALERT_KIND not in body or self.alerts.wait()):
            raise RateLimited(wait)

    def take(self, batch: Batch, rejected: int = 0) -> None:
        """Count the events of `batch`, and the number of its events that were `rejected`.

        An empty batch is work too, and counts as one event. If there is no token, counts none and raises RateLimited.
        """
        alerts = len(batch.alerts)
        others = len(batch.events) - alerts + rejected or int(not alerts)
        if wait := max(self.events.wait() if others else 0, self.alerts.wait() if alerts else 0):
            raise RateLimited(wait)
        self.events.take(others)
        self.alerts.take(alerts)

    def charge(self, event_count: int, size: int) -> None:
        """Count a body of `size` bytes that was refused for its content: finding that out was work."""
        cost = 1 + max(event_count, size // EVENT_BYTES)
        # Otherwise a device without tokens could go on sending bodies that name an alert and are refused.
        (self.alerts if self.events.wait() else self.events).take(cost)


class Limiter:
    """The allowances of all devices that have a limit."""

    def __init__(self) -> None:
        self._allowances: dict[int, Allowance] = {}  # by device

    def of(self, device: Device) -> Allowance | None:
        """The allowance of `device`, None if it has no limit."""
        rate = device.events_per_second
        if rate is None:
            rate = settings.INGEST_EVENTS_PER_SECOND
        if not rate:
            return None
        burst = settings.INGEST_BURST if device.burst is None else device.burst
        allowance = self._allowances.get(device.pk)
        if allowance is None or allowance.limits != (rate, burst):
            allowance = self._allowances[device.pk] = Allowance(rate, burst)
        return allowance


limiter = Limiter()
