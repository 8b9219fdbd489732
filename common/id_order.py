"""Rows found by their place in the order of ids, which other columns grow with."""

from datetime import timedelta
from typing import Any

from django.db.models import QuerySet

RECEIVED_SLACK = timedelta(minutes=1)  # ids are not strictly in the order of `received_at`: batches wait for each other


def first_id(rows: QuerySet, field: str, value: Any, end: int) -> int:
    """The first id whose `field` is at least `value`, or `end` if there is none below it.

    `field` must grow with the ids: then about twenty look-ups by primary key replace an index on `field`.
    """
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        row = rows.filter(pk__gte=middle).order_by("pk").values_list("pk", field).first()
        if row is None or row[1] >= value:
            high = middle
        else:
            low = row[0] + 1
    # The id found may lie in a gap: move on to the next row.
    return rows.filter(pk__gte=low).order_by("pk").values_list("pk", flat=True).first() or end


def next_id(rows: QuerySet) -> int:
    """One more than the newest id."""
    return (rows.order_by("-pk").values_list("pk", flat=True).first() or 0) + 1


def is_id(text: str) -> bool:
    """Whether `text` is a number that the database can compare with an id."""
    return text.isascii() and text.isdecimal() and len(text) < 19
