"""Work that would hold the event loop up: done in a few threads, and one piece at a time for a device."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakValueDictionary

from common.loops import PerLoop
from ingest.errors import Overloaded

T = TypeVar("T")

THREADS = 2  # more would not be faster, for they share the interpreter, and the event loop would wait for each of them
TURN_SECONDS = 8.0

_executor = ThreadPoolExecutor(THREADS, thread_name_prefix="ingest-check")
_locks_of = PerLoop[WeakValueDictionary[int, asyncio.Lock]](lambda loop: WeakValueDictionary()).of  # by device


async def run_in_turn(device_id: int, work: Callable[..., T], *arguments: object) -> T:
    """What `work` returns, from a thread. It begins when all that the device has asked for before is done.

    Raises Overloaded where that is not done within `TURN_SECONDS`.
    """
    loop = asyncio.get_running_loop()
    locks = _locks_of(loop)
    lock = locks.get(device_id)
    if lock is None:
        lock = locks[device_id] = asyncio.Lock()

    def end_turn(_: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits there any more
            loop.call_soon_threadsafe(lock.release)

    try:
        async with asyncio.timeout(TURN_SECONDS):
            await lock.acquire()
            future = _executor.submit(work, *arguments)
            # Not when the request ends: a thread can't be stopped, and the next turn must not begin beside it.
            future.add_done_callback(end_turn)
            try:
                return await asyncio.wrap_future(future)
            finally:
                del future  # it holds what `work` raised, whose traceback leads back here, and so to a whole body
    except TimeoutError:
        raise Overloaded from None
