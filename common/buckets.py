"""Token buckets: `burst` requests at once, and `rate` a second in the long run."""

import math
import threading
import time


class Buckets:
    """A bucket for each key, full at first. At `most` keys, those whose buckets are full again are forgotten.

    If that frees nothing, all are forgotten: a flood of keys must not fill our memory. Thread-safe.
    """

    def __init__(self, rate: float, burst: float, most: int = 10_000) -> None:
        self._rate, self._burst, self._most = rate, burst, most
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and when they were counted
        self._lock = threading.Lock()

    def take(self, key: str) -> int:
        """Take a token. Returns 0, or the seconds until there is one."""
        with self._lock:
            now = time.monotonic()
            tokens = self._tokens(key, now)
            if tokens < 1:
                return math.ceil((1 - tokens) / self._rate)
            if key not in self._buckets and len(self._buckets) >= self._most:
                self._forget(now)
            self._buckets[key] = tokens - 1, now
            return 0

    def is_empty(self, key: str) -> bool:
        return self._tokens(key, time.monotonic()) < 1

    def _tokens(self, key: str, now: float) -> float:
        tokens, then = self._buckets.get(key, (self._burst, now))
        return min(self._burst, tokens + (now - then) * self._rate)

    def _forget(self, now: float) -> None:
        self._buckets = {key: found for key, found in self._buckets.items() if self._tokens(key, now) < self._burst}
        if len(self._buckets) >= self._most:
            self._buckets.clear()

    def clear(self) -> None:
        self._buckets.clear()
