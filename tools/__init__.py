"""Programs for developers and the gate: run as `python -m tools.NAME`."""
