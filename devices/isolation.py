"""Row-level security: on PostgreSQL a query that forgets to ask whose rows it may show, shows none.

Devices are served by the database's own user, whom no policy binds, so the ingest path pays nothing. For a page or a
socket the transaction changes to the role PEOPLE, and what that may see is decided by the policies of
`ingestcloud/migrations/0001_row_level_security.py`, from the id of the user and the members of tenants.
https://www.postgresql.org/docs/current/ddl-rowsecurity.html
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.db import InterfaceError, OperationalError, connection, connections, transaction
from django.http import HttpRequest, HttpResponse

logger = logging.getLogger(__name__)

AWAY = "The database does not answer just now. Try again in a few seconds."
PEOPLE = "ingestcloud_people"
# Devices are known by their keys, and what only says that we are here asks for no rows.
NOT_FOR_PEOPLE = ("/v1/", "/api/", "/healthz", "/readyz")

WHO_ACTS = "SELECT current_setting('role'), coalesce(current_setting('ingestcloud.user', true), '')"
ACT_AS = "SELECT set_config('role', %s, true), set_config('ingestcloud.user', %s, true)"


@contextmanager
def acting_as(user: Any) -> Iterator[None]:
    """One transaction, in which the database shows what `user` may see and lets them change no other row.

    On SQLite, which has no such thing, it does nothing.
    """
    with _role(PEOPLE, str(user.pk or 0)):
        yield


@contextmanager
def as_ourselves() -> Iterator[None]:
    """Within `acting_as`: what must be asked of all rows, such as whether a name is taken."""
    with _role("none", ""):
        yield


@contextmanager
def _role(role: str, user: str) -> Iterator[None]:
    if connection.vendor != "postgresql":
        yield
        return
    # With the transaction it is over by itself; within another we have to go back.
    before = _ask(WHO_ACTS) if connection.in_atomic_block else None
    with transaction.atomic():
        _ask(ACT_AS, role, user)
        yield
    if before:
        _ask(ACT_AS, *before)


def _ask(query: str, *arguments: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query, arguments)
        return cursor.fetchone()


class TenantIsolationMiddleware:
    """A page is one transaction that acts as its user, and a 503 while the database does not answer.

    Behind the middleware that knows who the user is.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(NOT_FOR_PEOPLE):
            return self.get_response(request)
        try:
            with acting_as(request.user):
                return self.get_response(request)
        except (OperationalError, InterfaceError) as error:
            logger.error("The database failed: %r", error)
            return HttpResponse(AWAY, status=503, content_type="text/plain", headers={"Retry-After": "5"})


UNGRANTED = """
SELECT relname FROM pg_class
 WHERE relname = ANY(%s) AND relnamespace = current_schema()::regnamespace
   AND NOT has_table_privilege(%s, oid, 'DELETE')
"""  # the four are granted together, so one tells of all


def grant_tables(using: str, **kwargs: object) -> None:
    """Let PEOPLE use the tables of all models; after each `migrate`, for it may have made some.

    The partitions of the events are not among them: they have no policy of their own.
    """
    connection = connections[using]
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regrole(%s)", [PEOPLE])
        if cursor.fetchone() == (None,):  # the migrations were taken back
            return
        tables = [model._meta.db_table for model in apps.get_models(include_auto_created=True)]
        cursor.execute(UNGRANTED, [tables, PEOPLE])
        for (table,) in cursor.fetchall():
            cursor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {connection.ops.quote_name(table)} TO {PEOPLE}")
