"""The only way into the database for batches. Other packages import only the names below.

`store_batch` is for a request: it awaits one of the writer's threads, where batches share a commit. `store_batches` is
what those threads call, and a page that already has a thread and a transaction of its own.
"""

from ingest.storing.store import store_batches
from ingest.storing.writer import writer as _writer

store_batch = _writer.store
close_writer = _writer.close

__all__ = ["close_writer", "store_batch", "store_batches"]
