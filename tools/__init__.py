"""Programs for developers and for .ci/run: `python -m tools.NAME`."""
