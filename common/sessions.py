"""Sessions that end after hours without use."""

import time
from typing import Any

USED_AT = "used_at"  # by the clock of the server, in seconds
NOTE_USE_EVERY_SECONDS = 600  # each is a write


def note_use(session: Any) -> None:
    """Prolong a session that somebody uses: a change of it moves its end."""
    now = int(time.time())
    if abs(now - session.get(USED_AT, 0)) >= NOTE_USE_EVERY_SECONDS:
        session[USED_AT] = now
