"""How log records are written: as one line of bounded length, whatever a client has put into it."""

import logging
import time
from typing import Any

from common.text import escape

INDENT = "    "  # keeps a line of a traceback from looking like a log line
MAX_LINE = 1000  # characters
MAX_TRACEBACK = 20_000  # characters
REFUSALS_EVERY_SECONDS = 60.0


class LineFormatter(logging.Formatter):
    """Escapes characters that would start a new line or control a terminal. Tracebacks keep their lines, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        return _cut(escape(super().formatMessage(record)), MAX_LINE)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return _indent(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _indent(super().formatStack(stack_info))


class SeldomRefusals(logging.Filter):
    """Passes one of Django's log lines about 4xx answers a minute, with the number of lines left out since.

    Any client can cause them, with tracebacks. The access log, of the server or of its proxy, has every request.
    """

    def __init__(self) -> None:
        super().__init__()
        self._left_out = 0
        self._written_at = -REFUSALS_EVERY_SECONDS

    def filter(self, record: logging.LogRecord) -> bool:
        if not 400 <= getattr(record, "status_code", 0) < 500:
            return True
        now = time.monotonic()
        if now - self._written_at < REFUSALS_EVERY_SECONDS:
            self._left_out += 1
            return False
        text = record.getMessage()[: MAX_LINE // 2]
        record.msg, record.args = f"{text} ({self._left_out} more since the last such line)", ()
        record.exc_info = record.exc_text = None
        self._left_out, self._written_at = 0, now
        return True


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}… ({len(text) - length} more characters)"


def _indent(text: str) -> str:
    """Indent a traceback. The start of a long one is left out: the exception is at its end."""
    if len(text) > MAX_TRACEBACK:
        text = f"({len(text) - MAX_TRACEBACK} more characters)\n{text[-MAX_TRACEBACK:]}"
    return "\n".join(INDENT + _cut(escape(line), MAX_LINE) for line in text.split("\n"))
