"""Queries from the event loop: in a few threads for each purpose, and with a limit on every wait.

`connection` is the thread's own; `connection.connection` is the driver's, None until the thread has got one.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, connection

from common.connections import OPERATION_SECONDS

P = ParamSpec("P")
T = TypeVar("T")


class QueryThreads:
    """Threads for one purpose, so that queries for others can't hold it up.

    Channels itself has one thread for all: while the database is down, each query would wait for all before it.
    """

    def __init__(self, name: str, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, query: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Run `query` and return its result. Raises OperationalError if it takes longer than `OPERATION_SECONDS`.

        A query whose task was cancelled before it began is not run.
        """
        try:
            async with asyncio.timeout(OPERATION_SECONDS):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._executor, _run, query, arguments, keywords)
        except TimeoutError as error:
            raise OperationalError("The database did not answer in time.") from error


def _run(query: Callable[..., T], arguments: tuple, keywords: dict) -> T:
    try:
        return query(*arguments, **keywords)
    except (OperationalError, InterfaceError):
        has_begun = connection.connection is not None  # else the query did not reach the database
        connection.close()
        if has_begun:
            raise
        # The pool had no live connection, and makes new ones now.
        return query(*arguments, **keywords)
    finally:
        connection.close()
