"""How long the tests try what they make up: `make fuzz` asks for many times more."""

import os

FUZZ = int(os.environ.get("FUZZ") or "1")
