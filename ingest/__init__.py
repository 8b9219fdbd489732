"""The ingest endpoint: check a batch, store it, acknowledge it."""
