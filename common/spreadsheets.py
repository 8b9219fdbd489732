"""CSV that a spreadsheet may open: nothing in it is a formula."""

import csv
import io
from collections.abc import Iterable
from typing import Any

# A spreadsheet takes text that begins like this for a formula. https://owasp.org/www-community/attacks/CSV_Injection
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def as_csv(columns: Iterable[str] | None, rows: Iterable[Iterable[Any]]) -> str:
    """A file with a first line of `columns`, or without them the lines that follow."""
    text = io.StringIO()
    writer = csv.writer(text)
    if columns is not None:
        writer.writerow(columns)
    for row in rows:
        writer.writerow(harmless(value) for value in row)
    return text.getvalue()


def harmless(value: Any) -> Any:
    """`value` as a cell that no spreadsheet takes for a formula."""
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
