"""How long the tests try what they make up: always the same, and with `make fuzz` many times more and ever new."""

import os

from hypothesis import settings

FUZZ = int(os.environ.get("FUZZ") or "1")

settings.register_profile("ingestcloud", deadline=None, derandomize=FUZZ == 1)
settings.load_profile("ingestcloud")
