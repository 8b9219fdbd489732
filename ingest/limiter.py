"""How many events a second a device may send: a token bucket for each, in this process."""

import time

from django.conf import settings

from devices.models import Device
from ingest.batch import Batch
from ingest.errors import RateLimited


class Limiter:
    """A bucket holds as many tokens as the burst, and gets as many a second as the rate; an event takes one.

    A batch is taken while the bucket is not empty, and may leave a debt: so none is too large to be ever taken.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, tuple[float, float]] = {}  # by device: tokens, and when that was

    def take(self, batch: Batch) -> None:
        """Count the events of `batch`. Raises RateLimited where the device has to wait.

        A batch with an alert in it is never refused, and alerts take no tokens.
        """
        device = batch.key.device
        rate, burst = rate_and_burst(device)
        if not rate:
            return
        now = time.monotonic()
        tokens, then = self._buckets.get(device.pk, (burst, now))
        tokens = min(burst, tokens + (now - then) * rate)
        if tokens <= 0 and not batch.alerts:
            raise RateLimited((1 - tokens) / rate)
        self._buckets[device.pk] = tokens - len(batch.events) + len(batch.alerts), now


def rate_and_burst(device: Device) -> tuple[int, int]:
    """Events a second (0: no limit) and at once, the device's own where it has them."""
    rate, burst = device.events_per_second, device.burst
    return (
        settings.INGEST_EVENTS_PER_SECOND if rate is None else rate,
        settings.INGEST_BURST if burst is None else burst,
    )


limiter = Limiter()
