"""The only way into the database for batches. Other packages import only the names below."""

from ingest.storing.store import store_batches
from ingest.storing.writer import writer as _writer

store_batch = _writer.store
close_writer = _writer.close

__all__ = ["close_writer", "store_batch", "store_batches"]
