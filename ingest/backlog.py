"""How much this process holds of batches that are not stored yet: bounded, so that it never runs out of memory."""

import threading
from typing import ClassVar

from django.conf import settings

from ingest.errors import DeviceOverloaded, Overloaded

BATCH_OVERHEAD_BYTES = 4096  # what even the smallest batch costs, roughly
MAX_REQUESTS = 16  # of one device that are being answered at the same time
DEVICE_FRACTION = 8  # a device may hold one eighth of the whole, so that one can't keep the others out


class Backlog:
    """Bytes of bodies that are being read or checked, and of batches that wait for a writer. Threads share it."""

    def __init__(self) -> None:
        self.held = 0
        self._by_device: dict[int, int] = {}
        self._lock = threading.Lock()

    def acquire(self, device_id: int, size: int) -> None:
        """Hold `size` bytes more. Raises DeviceOverloaded or Overloaded where that is too much: none are held then."""
        with self._lock:
            of_device = self._by_device.get(device_id, 0)
            # A body alone is always taken, however small the setting.
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
    """What one device may hold: a part of the whole, but at least the largest batch that it may send."""
    return max(settings.INGEST_BACKLOG_BYTES // DEVICE_FRACTION, settings.INGEST_MAX_BYTES + BATCH_OVERHEAD_BYTES)


class InFlight:
    """A request of a device, from its authentication to its answer. A device has MAX_REQUESTS at once and no more.

    What they cost is not in proportion to their bytes, and others wait behind all of them for the database.
    """

    _by_device: ClassVar[dict[int, int]] = {}  # of this process; its event loop alone uses it

    def __init__(self, device_id: int) -> None:
        self.device_id = device_id

    def __enter__(self) -> None:
        """Raises DeviceOverloaded."""
        count = self._by_device.get(self.device_id, 0)
        if count >= MAX_REQUESTS:
            raise DeviceOverloaded
        self._by_device[self.device_id] = count + 1

    def __exit__(self, *error: object) -> None:
        count = self._by_device.pop(self.device_id) - 1
        if count:
            self._by_device[self.device_id] = count


class Reservation:
    """What one request of a device holds, until the end of its `with` block."""

    def __init__(self, device_id: int) -> None:
        self.device_id = device_id
        self._size = 0

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *error: object) -> None:
        if self._size:
            backlog.release(self.device_id, self._size)

    def grow(self, size: int) -> None:
        """Hold `size` bytes in all, if it is less now. Raises DeviceOverloaded or Overloaded."""
        if size > self._size:
            backlog.acquire(self.device_id, size - self._size)
            self._size = size


backlog = Backlog()
