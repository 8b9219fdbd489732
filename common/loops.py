"""One object for each event loop. A server process has one loop, tests have many."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Makes a loop's object when it is first asked for, and forgets those of closed loops."""

    def __init__(self, make: Callable[[asyncio.AbstractEventLoop], T]) -> None:
        self._make = make
        self._objects: dict[asyncio.AbstractEventLoop, T] = {}

    def of(self, loop: asyncio.AbstractEventLoop) -> T:
        found = self._objects.get(loop)
        if found is None:
            for closed in [other for other in self._objects if other.is_closed()]:
                del self._objects[closed]
            found = self._objects[loop] = self._make(loop)
        return found
