"""How a record of the log is written: as one line, whatever a client has put into it."""

import logging
from typing import Any

from common.text import escape

INDENT = "    "  # a line of a traceback never looks like one of the log


class LineFormatter(logging.Formatter):
    """Escapes what would begin a line of its own, or change a terminal's. Tracebacks keep their lines, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        return escape(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return _indent(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _indent(super().formatStack(stack_info))


def _indent(text: str) -> str:
    return "\n".join(INDENT + escape(line) for line in text.split("\n"))
