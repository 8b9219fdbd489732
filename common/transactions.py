"""Transactions that end in time: what was answered as failed, or given up, must not be committed later."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connection, transaction

BOUNDS = "SELECT set_config('statement_timeout', %s, true), set_config('idle_in_transaction_session_timeout', %s, true)"


class TimeLimit:
    """The time, from now on, that a request has for all that it asks of the database.

    PostgreSQL itself holds to it: it cancels a statement that takes longer, also by waiting for a lock, and ends the
    session when the next statement or the commit stays away. On SQLite only the lock of its one writer is waited for,
    and `timeout` in settings.py bounds that; those who read wait for nobody.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction that is rolled back, with OperationalError, unless it can be committed in time."""
        with connection.execute_wrapper(self._execute), transaction.atomic(durable=True):
            yield
            self._milliseconds_left()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """For queries that write nothing. PostgreSQL's bounds are a transaction's; SQLite's would lock writers out."""
        if connection.vendor == "postgresql":
            with self.transaction():
                yield
        else:
            yield

    def _milliseconds_left(self) -> int:
        """Raises OperationalError where there are none."""
        left = int((self._end - time.monotonic()) * 1000)
        if left <= 0:
            raise OperationalError("The time for this transaction is over.")
        return left

    def _execute(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Around each statement (Django's "database instrumentation")."""
        left = self._milliseconds_left()
        # In a transaction that failed PostgreSQL takes nothing but the way back to a savepoint.
        if connection.vendor == "postgresql" and not sql.startswith("ROLLBACK"):
            execute(BOUNDS, (str(left), str(left)), False, context)
        return execute(sql, params, many, context)
