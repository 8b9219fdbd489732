"""Log lines that many requests may cause at once."""

import logging
import time


class SeldomLine:
    """Writes at most one line in `seconds`: a thousand sockets may hit the same fault, and anyone can send requests."""

    def __init__(self, logger: logging.Logger, level: int, seconds: float = 10.0) -> None:
        self._logger, self._level, self._seconds = logger, level, seconds
        self._written_at = -seconds

    def write(self, text: str, *arguments: object) -> None:
        now = time.monotonic()
        if now - self._written_at >= self._seconds:
            self._written_at = now
            self._logger.log(self._level, text, *arguments)
