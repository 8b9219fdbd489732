"""Cancellations that are lost, and what to do about it."""

import asyncio

AGAIN_SECONDS = 0.5


def keep_cancelling(loop: asyncio.AbstractEventLoop) -> None:
    """From now until `loop` is closed, cancel each task again that has been cancelled and does not end.

    For a loop that is about to be closed, because closing waits for all tasks that it has cancelled. On Python 3.11,
    `asyncio.wait_for` swallows a cancellation that comes just when what it waits for is done, and the client of Redis
    calls it for each command. Fixed in Python 3.12: https://github.com/python/cpython/issues/86296
    """

    def cancel_again() -> None:
        for task in asyncio.all_tasks(loop):
            if task.cancelling():
                task.cancel()
        loop.call_later(AGAIN_SECONDS, cancel_again)

    loop.call_later(AGAIN_SECONDS, cancel_again)
