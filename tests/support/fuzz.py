"""How many generated examples the tests try: always the same, or with `make fuzz` many times more, new in each run."""

import os

from hypothesis import settings

FUZZ = int(os.environ.get("FUZZ") or "1")

settings.register_profile("ingestcloud", deadline=None, derandomize=FUZZ == 1)
settings.load_profile("ingestcloud")
