"""Short questions to the database from the event loop: by a few threads, and with an end to the wait."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, connection

ANSWER_SECONDS = 8.0

P = ParamSpec("P")
T = TypeVar("T")

_threads = ThreadPoolExecutor(4, thread_name_prefix="question")


async def ask_database(question: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """What `question` returns. Raises OperationalError where that takes longer than `ANSWER_SECONDS`.

    Channels' own way has one thread for all: while the database is away, each would wait for all before it.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(_threads, _ask, question, arguments, keywords)
    except TimeoutError as error:
        raise OperationalError("The database did not answer in time.") from error


def _ask(question: Callable[..., T], arguments: tuple, keywords: dict) -> T:
    try:
        return question(*arguments, **keywords)
    except (OperationalError, InterfaceError):
        forget_dead_connections()
        raise
    finally:
        connection.close()


def forget_dead_connections() -> None:
    """Give this thread's connection up, and those in the pool that were cut.

    The pool itself would find them one at a time, with a longer and longer pause behind each.
    """
    connection.close()
    if pool := getattr(connection, "pool", None):
        pool.check()
