"""Pages of rows in a strict order, newest first: each begins where another ended, so that none costs more than the
first. https://use-the-index-luke.com/no-offset
"""

from datetime import UTC, datetime
from typing import Any

from django.db.models import Q, QuerySet

from common.id_order import is_id

PLACE_LENGTH = 100  # characters


class Order:
    """Rows by `fields`, descending: times and ids. The last one is the primary key, so that no two rows are at the same
    place.
    """

    def __init__(self, *fields: str) -> None:
        self.fields = fields

    def place_of(self, row: Any) -> str:
        """The place of `row`, as text for an address."""
        return ",".join(self._text(getattr(row, field)) for field in self.fields)

    def parse(self, text: str) -> tuple[Any, ...]:
        """The place that `place_of` gave. Raises ValueError."""
        parts = text.split(",") if len(text) <= PLACE_LENGTH else []
        return tuple(self._value(field, part) for field, part in zip(self.fields, parts, strict=True))

    def sort(self, rows: QuerySet, *, newest_first: bool = True) -> QuerySet:
        return rows.order_by(*(f"-{field}" if newest_first else field for field in self.fields))

    def beyond(self, place: tuple[Any, ...], *, newest_first: bool = True) -> Q:
        """The rows that come after `place` when they are read in this direction."""
        found, same = Q(), Q()
        for field, value in zip(self.fields, place, strict=True):
            found |= same & Q(**{f"{field}__{'lt' if newest_first else 'gt'}": value})
            same &= Q(**{field: value})
        return found

    @staticmethod
    def _text(value: Any) -> str:
        return value.isoformat() if isinstance(value, datetime) else str(value)

    @staticmethod
    def _value(field: str, text: str) -> Any:
        if field == "pk" or field.endswith("_id"):
            if not is_id(text):
                raise ValueError("This is not an id.")
            return int(text)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("A place has times with an offset.")
        try:
            return moment.astimezone(UTC)
        except OverflowError as error:
            raise ValueError("There is no such time in UTC.") from error
