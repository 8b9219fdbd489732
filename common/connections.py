"""Connections to PostgreSQL on which every operation ends, and of which dead ones are given up together."""

from contextvars import ContextVar
from typing import Any, ClassVar, cast

import psycopg
from django.db import connection
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg.errors import _WaitTimeout  # what `Connection.wait` is documented to raise; it has no public name

OPERATION_SECONDS = 8.0
# What a thread for slow work waits for an operation, in seconds, where a server would give up after OPERATION_SECONDS.
patience: ContextVar[float | None] = ContextVar("patience", default=None)


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed if an operation on it takes longer than `seconds`.

    A load balancer or pooler in between may keep a dead connection open and answer its keepalives: only an operation
    that does not return shows it. A server sets `seconds`; commands may take as long as they need.

    Whoever finds a connection dead, the pool's own check or a query, closes all idle ones: they may be dead too. The
    pool would find them one at a time, with an ever longer pause after each, so that a request's time runs out at the
    third; and asking a dead connection whether it is alive may take as long as any other operation on it.
    """

    seconds: ClassVar[float | None] = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """psycopg's own, which it calls for every operation. Raises OperationalError after `seconds`, and closes the
        connection.
        """
        try:
            return self._wait(gen, interval, timeout)
        except psycopg.Error:
            if self.closed:
                cast(DatabaseWrapper, connection).pool.drain()
            raise

    def _wait(self, gen: Any, interval: float, timeout: float | None) -> Any:
        if timeout is not None or self.seconds is None:
            return super().wait(gen, interval, timeout)
        seconds = patience.get() or self.seconds
        try:
            return super().wait(gen, interval, seconds)
        except _WaitTimeout as error:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"The database did not answer within {seconds:g} seconds.") from error
