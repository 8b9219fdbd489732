"""Failed sign-ins in the audit: recorded, but a storm of them does not fill the table."""

import threading
import time
from typing import Any

from django.http import HttpRequest

from common.headers import network_of
from tenants.audit import Actor, record
from tenants.models import ActorKind, Verb

MAX_KEYS = 30  # names and addresses whose failures are counted apart in a minute
OTHERS = (0, "")


def this_minute() -> int:
    return int(time.time() // 60)


class FailureCounts:
    """Counts failures by user and address, for one minute. Of each count, the 1st, 10th, 100th and so on is recorded.

    All beyond MAX_KEYS are counted together. So a server process adds at most some sixty entries a minute, whoever
    tries whatever from wherever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._minute = 0
        self._counts: dict[tuple[int, str], int] = {}

    def count(self, user_id: int, network: str) -> tuple[int, bool]:
        """The number of this failure in its minute, and whether it is one of all others."""
        minute = this_minute()
        with self._lock:
            if minute != self._minute:
                self._minute, self._counts = minute, {}
            key = (user_id, network)
            if key not in self._counts and len(self._counts) >= MAX_KEYS:
                key = OTHERS
            number = self._counts[key] = self._counts.get(key, 0) + 1
        return number, key == OTHERS

    def clear(self) -> None:
        self._counts.clear()


failures = FailureCounts()


def record_failure(request: HttpRequest | None, user: Any, reason: str) -> None:
    """Record a failed sign-in of `user`, None for a name that nobody has: people type passwords into that field."""
    number, is_one_of_others = failures.count(user.pk if user else 0, network_of(request.META if request else {}))
    if str(number).strip("0") != "1":
        return
    after: dict[str, Any] = {"reason": reason}
    if number > 1:
        after["failures_this_minute"] = number
    if is_one_of_others:
        after["from"] = f"any name and address beyond the first {MAX_KEYS}"
    record(Verb.SIGN_IN_FAILED, user, after=after, actor=Actor(ActorKind.NOBODY))
