"""Bounds the bytes of unstored batches that this process holds, so that it never runs out of memory."""

import threading
from typing import ClassVar

from django.conf import settings

from ingest.errors import DeviceOverloaded, Overloaded

BATCH_OVERHEAD_BYTES = 4096  # roughly what even the smallest batch costs
MAX_REQUESTS = 8  # in flight, per device
DEVICE_FRACTION = 8  # a device may hold an eighth of the backlog, so that it can't keep the others out


class Backlog:
    """Counts the bytes of bodies being read or checked, and of batches waiting for a writer. Thread-safe."""

    def __init__(self) -> None:
        self.held = 0
        self._by_device: dict[int, int] = {}
        self._lock = threading.Lock()

    def acquire(self, device_id: int, size: int) -> None:
        """Hold `size` more bytes. If that is too much, holds none and raises DeviceOverloaded or Overloaded."""
        with self._lock:
            of_device = self._by_device.get(device_id, 0)
            # A body on its own is always accepted, however small the setting.
            if of_device and of_device + size > device_bytes():
                raise DeviceOverloaded
            if self.held and self.held + size > settings.INGEST_BACKLOG_BYTES:
                raise Overloaded
            self.held += size
            self._by_device[device_id] = of_device + size

    def release(self, device_id: int, size: int) -> None:
        with self._lock:
            self.held -= size
            rest = self._by_device.pop(device_id, 0) - size
            if rest > 0:
                self._by_device[device_id] = rest


def device_bytes() -> int:
    """The bytes that one device may hold: a fraction of the backlog, but at least the largest batch it may send."""
    return max(settings.INGEST_BACKLOG_BYTES // DEVICE_FRACTION, settings.INGEST_MAX_BYTES + BATCH_OVERHEAD_BYTES)


class Reservation:
    """What a request of a device holds from its authentication to its answer: a place, and bytes.

    A device may have MAX_REQUESTS at once: bytes alone do not bound what requests cost, and other devices wait behind
    all of them for the database.
    """

    _places: ClassVar[dict[int, int]] = {}  # taken, by device; only the event loop uses it

    def __init__(self, device_id: int) -> None:
        self.device_id = device_id
        self._size = 0

    def __enter__(self) -> "Reservation":
        """Raises DeviceOverloaded."""
        count = self._places.get(self.device_id, 0)
        if count >= MAX_REQUESTS:
            raise DeviceOverloaded
        self._places[self.device_id] = count + 1
        return self

    def __exit__(self, *error: object) -> None:
        self.release_bytes()
        count = self._places.pop(self.device_id) - 1
        if count:
            self._places[self.device_id] = count

    def grow(self, size: int) -> None:
        """Hold `size` bytes in total, if fewer are held now. Raises DeviceOverloaded or Overloaded."""
        if size > self._size:
            backlog.acquire(self.device_id, size - self._size)
            self._size = size

    def release_bytes(self) -> None:
        if self._size:
            backlog.release(self.device_id, self._size)
            self._size = 0


backlog = Backlog()
