"""Times as staff write them: `14:05` is today, and everything without an offset is UTC."""

import re
from datetime import UTC, date, datetime, time

IN_WORDS = "Write 14:05 (today, UTC), 2026-11-20 14:05 or 2026-11-20T14:05:00+01:00."
CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d)?")
DATE = re.compile(r"\d{4}-\d\d-\d\d")
MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ]+(\d{1,2}:\d\d(?::\d\d(?:[.,]\d{1,6})?)?) ?(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE
)
FIRST_YEAR, LAST_YEAR = 1970, 9998  # with room for what is added to and taken from a moment


class InvalidMomentError(ValueError):
    """`str` says what was expected."""


def parse_moment(text: str, now: datetime, day_means: time | None = None) -> datetime:
    """The moment that `text` names; a date alone is `day_means` on that day. Raises InvalidMomentError."""
    text = text.strip()
    try:
        if CLOCK.fullmatch(text):
            return datetime.combine(now.astimezone(UTC), _time(text), UTC)
        if day_means and DATE.fullmatch(text):
            return _in_bounds(datetime.combine(date.fromisoformat(text), day_means, UTC))
        if match := MOMENT.fullmatch(text):
            day, clock, offset = match.groups()
            moment = datetime.fromisoformat(f"{day}T{_time(clock.replace(',', '.'))}{(offset or 'Z').upper()}")
            return _in_bounds(moment)
    except (ValueError, OverflowError):  # well-formed, but there is no such day or time
        pass
    raise InvalidMomentError(f"“{text[:40]}” is not a time. {IN_WORDS}")


def _time(text: str) -> time:
    return time.fromisoformat(f"0{text}" if text[1] == ":" else text)


def _in_bounds(moment: datetime) -> datetime:
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError
    return moment.astimezone(UTC)
