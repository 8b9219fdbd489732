"""Sessions expire after hours without use: notes the use that prolongs them."""

import time
from typing import Any

USED_AT = "used_at"  # by the clock of the server, in seconds
NOTE_USE_EVERY_SECONDS = 600  # not more often, because each note is a write


def note_use(session: Any) -> None:
    """Prolong a session that is in use: changing it moves its expiry."""
    now = int(time.time())
    # `abs`, because a clock that was set back must not keep the session from being prolonged.
    if abs(now - session.get(USED_AT, 0)) >= NOTE_USE_EVERY_SECONDS:
        session[USED_AT] = now
