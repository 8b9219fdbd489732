"""ISO 8601 timestamps as devices write them."""

import re
from datetime import UTC, datetime, timedelta

# A date, a time of day, optionally a fraction, optionally an offset: Z, +00:00, +0000 or +00.
# The fraction never backtracks (`++`): with a million digits and an `x`, each digit would be tried as the last one.
ISO_8601 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d|60)(?:[.,](\d++))?)?"
    r"(Z|z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?",
    re.ASCII,
)


def parse_timestamp(text: str) -> datetime:
    """The moment that `text` names, in UTC, rounded to microseconds; without an offset `text` is in UTC.

    A leap second (RFC 3339, appendix D) is the second after it. Raises ValueError for anything that
    is not a timestamp, or that falls outside the years 1 to 9999 in UTC.
    """
    match = ISO_8601.fullmatch(text)
    if match is None:
        raise ValueError("not an ISO 8601 timestamp")
    date, hour, minute, second, fraction, offset = match.groups()
    leap = second == "60"
    seconds = "59" if leap else second or "00"
    offset = "+00:00" if offset in (None, "Z", "z") else offset
    micros, rest = f"{fraction or '':0<7}"[:6], f"{fraction or '':0<7}"[6]
    moment = datetime.fromisoformat(f"{date}T{hour}:{minute}:{seconds}.{micros}{offset}")
    try:
        return moment.astimezone(UTC) + timedelta(seconds=leap, microseconds=rest >= "5")
    except OverflowError as error:
        raise ValueError("outside the years 1 to 9999") from error
