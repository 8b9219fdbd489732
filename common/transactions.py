"""Transactions that end in time: a request that was given up, or answered with an error, must not commit later."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connection, transaction

BOUNDS = "SELECT set_config('statement_timeout', %s, true), set_config('idle_in_transaction_session_timeout', %s, true)"


class TimeLimit:
    """The time, counted from now, that a request has for all its queries.

    PostgreSQL itself enforces it: it cancels a statement that takes longer, including its wait for a lock, and ends the
    session if the next statement or the commit does not come. On SQLite the only wait is for the lock of its single
    writer, and `timeout` in settings.py bounds that; readers do not wait.
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
        """For reading only. PostgreSQL's limits need a transaction; on SQLite one would lock writers out."""
        if connection.vendor == "postgresql":
            with self.transaction():
                yield
        else:
            yield

    def _milliseconds_left(self) -> int:
        """Raises OperationalError if no time is left."""
        left = int((self._end - time.monotonic()) * 1000)
        if left <= 0:
            raise OperationalError("The time for this transaction has run out.")
        return left

    def _execute(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Around each statement (Django's "database instrumentation")."""
        left = self._milliseconds_left()
        # In a failed transaction PostgreSQL accepts only a rollback to a savepoint.
        if connection.vendor == "postgresql" and not sql.startswith("ROLLBACK"):
            execute(BOUNDS, (str(left), str(left)), False, context)
        return execute(sql, params, many, context)
