"""How much this process holds of batches that are not stored yet: bounded, so that it never runs out of memory."""

import threading

from django.conf import settings

from ingest.errors import Overloaded

BATCH_BYTES = 4096  # what even the smallest batch costs, roughly


class Backlog:
    """Bytes of bodies that are being read, and of batches that wait for a writer. Threads share it."""

    def __init__(self) -> None:
        self.held = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Hold `size` bytes more. Raises Overloaded where that is too much; nothing is held then."""
        with self._lock:
            # A body alone is always taken, however small the setting.
            if self.held and self.held + size > settings.INGEST_BACKLOG_BYTES:
                raise Overloaded
            self.held += size

    def give_back(self, size: int) -> None:
        with self._lock:
            self.held -= size


class Share:
    """What one request holds, until the end of its `with` block."""

    def __init__(self) -> None:
        self._size = 0

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *error: object) -> None:
        backlog.give_back(self._size)

    def grow(self, size: int) -> None:
        """Raises Overloaded."""
        backlog.take(size)
        self._size += size


backlog = Backlog()
