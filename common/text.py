"""Characters that are invisible, or that change how the text around them reads."""

import re

from django.core.exceptions import ValidationError

# Control characters and line separators, which start new lines; characters that override or isolate the writing
# direction, which display a line in another order; characters without width, and letters and symbols that show nothing,
# with which two names can look the same; and surrogates, which no database can store.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029"  # controls and separators
    "\u202a-\u202e\u2066-\u206f"  # directions
    "\xad\u034f\u180e\u200b\u2060-\u2065\ufeff\ufff9-\ufffb\U0001bca0-\U0001bca3\U000e0000-\U000e00ff"  # without width
    "\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U0001d159\U0001d173-\U0001d17a"  # without ink
    "\ud800-\udfff]"  # surrogates
)
# Joiners, directional marks and variation selectors, which some languages can't be written without, and spaces of all
# kinds: they may be part of a name, but a name can't consist of them alone.
BLANK = re.compile("[\\s\u061c\u180b-\u180d\u180f\u200c-\u200f\ufe00-\ufe0f\U000e0100-\U000e01ef]+")


def printable(text: str) -> None:
    """Validate a name. Raises ValidationError if `text` has a character of UNPRINTABLE, or no visible one."""
    if found := UNPRINTABLE.search(text):
        raise ValidationError(
            f"Must not have control or invisible characters, such as U+{ord(found[0]):04X}.", code="control_characters"
        )
    if BLANK.fullmatch(text):
        raise ValidationError("Must have a visible character.", code="control_characters")


def escape(text: str) -> str:
    """`text` with every character of UNPRINTABLE escaped as in Python, such as `\\n`."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
