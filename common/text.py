"""Characters that nobody sees, or that change how the text around them is read."""

import re

from django.core.exceptions import ValidationError

# Control characters and separators of lines, which make lines of their own; what overrides or isolates the direction of
# writing, which shows a line in another order; what has no width, by which two names look the same; and surrogates,
# which no database can store. The joiners and the marks of direction stay: some languages are not written without them.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029"  # controls and separators
    "\u202a-\u202e\u2066-\u206f"  # directions
    "\xad\u180e\u200b\u2060-\u2065\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # without width
    "\ud800-\udfff]"  # surrogates
)


def printable(text: str) -> None:
    """A validator of names. Raises ValidationError where `text` has a character of UNPRINTABLE."""
    if found := UNPRINTABLE.search(text):
        raise ValidationError(
            f"Must not have control or invisible characters, such as U+{ord(found[0]):04X}.", code="control_characters"
        )


def escape(text: str) -> str:
    """`text` with every character of UNPRINTABLE as Python writes it, such as `\\n`."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
