"""The address to which devices send. Settings need it, before any model can be loaded."""

INGEST_PATH = "/v1/ingest"
