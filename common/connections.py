"""Connections to PostgreSQL on which every operation ends."""

from typing import Any, ClassVar

import psycopg
from psycopg.errors import _WaitTimeout  # what `Connection.wait` is documented to raise; it has no public name

OPERATION_SECONDS = 8.0


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed if an operation on it takes longer than `seconds`.

    A load balancer or pooler in between may keep a dead connection open and answer its keepalives: only an operation
    that does not return shows it. A server sets `seconds`; commands may take as long as they need.
    """

    seconds: ClassVar[float | None] = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """psycopg's own, which it calls for every operation. Raises OperationalError after `seconds`, and closes the
        connection.
        """
        if timeout is not None or self.seconds is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.seconds)
        except _WaitTimeout as error:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"The database did not answer within {self.seconds:g} seconds.") from error
