"""A task that swallows a cancellation does not keep a loop from being closed."""

import asyncio
import contextlib

import pytest

from common.cancellation import keep_cancelling

pytestmark = pytest.mark.once


async def test_a_task_that_swallowed_its_cancellation_is_cancelled_again():
    async def swallow_the_first() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    keep_cancelling(asyncio.get_running_loop())
    task = asyncio.create_task(swallow_the_first())
    other = asyncio.create_task(asyncio.sleep(1))
    await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=60)
    assert done == {task}
    assert task.cancelled()
    await other  # nobody cancelled it
