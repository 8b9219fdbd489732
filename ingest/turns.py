"""Work that would hold up the event loop: done in a few threads, one piece at a time for each device."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakValueDictionary

from common.loops import PerLoop
from ingest.errors import Overloaded

T = TypeVar("T")

THREADS = 2  # more would not be faster: they share the interpreter, and the event loop would wait for each
TURN_SECONDS = 8.0

_executor = ThreadPoolExecutor(THREADS, thread_name_prefix="ingest-check")
_locks_of = PerLoop[WeakValueDictionary[int, asyncio.Lock]](lambda loop: WeakValueDictionary()).of  # by device


async def run_in_turn(device_id: int, work: Callable[..., T], *arguments: object) -> T:
    """Run `work` in a thread, after all earlier work of the device, and return its result.

    Raises Overloaded if that takes longer than `TURN_SECONDS`.
    """
    loop = asyncio.get_running_loop()
    locks = _locks_of(loop)
    lock = locks.get(device_id)
    if lock is None:
        lock = locks[device_id] = asyncio.Lock()

    def end_turn(_: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nothing waits there any more
            loop.call_soon_threadsafe(lock.release)

    try:
        async with asyncio.timeout(TURN_SECONDS):
            await lock.acquire()
            future = _executor.submit(work, *arguments)
            # The turn does not end with the request: a thread can't be stopped, and the next turn must wait for it.
            future.add_done_callback(end_turn)
            try:
                return await asyncio.wrap_future(future)
            finally:
                # It holds the exception of `work`, whose traceback refers to this frame, and so to a whole body.
                del future
    except TimeoutError:
        raise Overloaded from None
