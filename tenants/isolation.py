"""Row-level security: on PostgreSQL a query that forgets to filter by tenant shows no rows of other tenants.

For a page or a socket, the transaction switches to the role PEOPLE_ROLE. The policies that `tenants.tables` creates
with each table decide which rows that role sees, from the user's id and the tenants they are a member of.
https://www.postgresql.org/docs/current/ddl-rowsecurity.html

Everything else runs as the tables' owner, to whom no policy applies, so the ingest path pays nothing: devices,
registrations, health, commands and migrations; the queries of middleware before and after a page (the session, its
user, failed logins); and within a page the queries inside `bypass_isolation`. `refuse_strays` keeps a page from
querying as the owner by mistake.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, cast

from django.conf import settings
from django.db import (
    DEFAULT_DB_ALIAS,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.http import HttpRequest, HttpResponse

from common import sequences
from common.seldom import SeldomLine

database_failed = SeldomLine(logging.getLogger(__name__), logging.ERROR)

UNAVAILABLE_TEXT = "This took too long, or the database is not responding. Try again in a few seconds, or ask for less."
PEOPLE_ROLE = "ingestcloud_people"
LOGIN_PATHS = frozenset({"/login/", "/admin/login/"})
# The database is to blame, not the page. InternalError is what a write on a standby raises.
DATABASE_FAILURES = (OperationalError, InterfaceError, InternalError)
READS = ("GET", "HEAD", "OPTIONS", "TRACE")
DOWNLOADS = re.compile(r"/(export|body)(/|\Z)")  # reads that write, because they are recorded

# The limit for one statement of a page or a socket; once this long has passed since its start, no new one begins.
STATEMENT_SECONDS = 4.0
# Set here because a role's own settings don't apply after SET ROLE.
ACT_AS = f"""
SELECT set_config('role', %s, true), set_config('ingestcloud.user', %s, true),
       set_config('statement_timeout', '{STATEMENT_SECONDS:g}s', true)
"""


class _Page:
    """A page or socket query that acts as a user, on one connection, until it has ended."""

    def __init__(self, user: Any) -> None:
        self.user_id = str(user.pk or 0)
        self.connection = connections[DEFAULT_DB_ALIAS]
        self.has_ended = False
        self.bypasses = False


_page: ContextVar[_Page | None] = ContextVar("page", default=None)


def refuse_strays(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Raises RuntimeError for a query of a page outside the page's own transaction.

    In another thread, or after the page has ended, it would run as the owner: for all tenants, and committed even if
    the page fails. Tasks and threads that asgiref or asyncio start for a page inherit its context and are caught too.
    """
    page = _page.get()
    if page is not None and (page.has_ended or context["connection"] is not page.connection):
        raise RuntimeError("A page may query the database only from its own thread, and only until it ends.")
    return execute(sql, params, many, context)


def watch_connection(connection: Any, **kwargs: object) -> None:
    """Receiver of `connection_created`, which is sent for the connection of each thread."""
    if refuse_strays not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, refuse_strays)  # Django removes its own from the other end


@contextmanager
def acting_as(user: Any) -> Iterator[None]:
    """One transaction in which the database shows only the rows that `user` may see, and lets them change no others.

    Its time is limited: raises OperationalError if a statement takes longer than STATEMENT_SECONDS, including waiting
    for a lock, or all of them together longer than twice that. On SQLite, which has no roles, only the limit applies.
    """
    outer, page = _page.get(), _Page(user)
    is_within = connection.in_atomic_block
    token = _page.set(page)
    try:
        with _in_time(), _role(PEOPLE_ROLE, page.user_id):
            yield
    finally:
        page.has_ended = True
        _page.reset(token)
    # The end of the transaction resets the role, and so does an exception, which rolls back to a savepoint. Only a
    # success within an outer transaction leaves it, and we have to switch back.
    if is_within:
        _act(*((PEOPLE_ROLE, outer.user_id) if outer else ("none", "")))


@contextmanager
def bypass_isolation() -> Iterator[None]:
    """Within `acting_as`, query all rows, for example to see whether a name is taken. Does nothing elsewhere."""
    page = _page.get()
    if page is None or page.bypasses:
        yield
        return
    page.bypasses = True
    try:
        with _role("none", ""):
            yield
    finally:
        page.bypasses = False
    _act(PEOPLE_ROLE, page.user_id)  # after an exception, the rollback to a savepoint has done it


@contextmanager
def _role(role: str, user_id: str) -> Iterator[None]:
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic():
        _act(role, user_id)
        yield


def _act(role: str, user_id: str) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(ACT_AS, (role, user_id))


def _in_time() -> AbstractContextManager[None]:
    """Check the time before each statement (Django's "database instrumentation").

    `common.transactions.TimeLimit` is exact to the millisecond, but sends a statement of its own before each other.
    """
    end = time.monotonic() + STATEMENT_SECONDS

    def execute_in_time(execute: Callable[..., Any], *arguments: Any) -> Any:
        if time.monotonic() > end:
            raise OperationalError("This page took too long.")
        return execute(*arguments)

    return connection.execute_wrapper(execute_in_time)


class TenantIsolationMiddleware:
    """Runs each page in one transaction that acts as its user; answers 503 if the database does not respond in time.

    The transaction of a page that fails is rolled back. Must come after the middleware that sets the user.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info in settings.PATHS_WITHOUT_USER:
            return self.get_response(request)
        try:
            with _transaction(request), acting_as(request.user):
                response = self.get_response(request)
                if response.streaming:
                    response.close()
                    raise RuntimeError("A page is one transaction, which ends before a stream begins.")
                if response.status_code >= 500:
                    _roll_back()
            if getattr(response, "id_is_taken", False):
                sequences.set_forward()
            return response
        except DATABASE_FAILURES as error:
            return unavailable(error)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Roll back: Django turns a view's exception into a response, so `__call__` never sees the exception."""
        _roll_back()
        id_is_taken = isinstance(exception, IntegrityError) and sequences.is_taken_id(exception)
        if not id_is_taken and not isinstance(exception, DATABASE_FAILURES):
            return None
        response = unavailable(exception)
        # For `__call__`, which sets the sequence forward: here the role may not, and the transaction has failed.
        cast("Any", response).id_is_taken = id_is_taken
        return response


def _roll_back() -> None:
    if connection.in_atomic_block:
        transaction.set_rollback(True)


def _transaction(request: HttpRequest) -> AbstractContextManager[None]:
    """The transaction of a page on SQLite; on PostgreSQL `acting_as` begins one.

    A transaction that may write locks out all other writers, so it begins as one only if the user is logged in and the
    method writes, or the page is a download, which is recorded. Other pages take the lock when they first write, and
    are answered 503 if another transaction has written since they first read. A login has no transaction, because no
    one else should wait while its password is hashed: each of its statements commits on its own.
    """
    if connection.vendor == "postgresql" or request.path_info in LOGIN_PATHS:
        return nullcontext()
    may_write = request.method not in READS or DOWNLOADS.search(request.path_info)
    writes = may_write and request.user.is_authenticated
    return _begin("IMMEDIATE" if writes else "DEFERRED")


@contextmanager
def _begin(mode: str) -> Iterator[None]:
    """An SQLite transaction in a mode other than the one in the settings."""
    connection.ensure_connection()  # which sets the mode
    database: Any = connections[DEFAULT_DB_ALIAS]
    usual, database.transaction_mode = database.transaction_mode, mode
    try:
        with transaction.atomic():
            yield
    finally:
        database.transaction_mode = usual


def unavailable(error: Exception) -> HttpResponse:
    """503 as text for a person; `ProblemDetailsMiddleware` turns it into a problem for a program."""
    database_failed.write("The database failed: %r", error)
    return HttpResponse(UNAVAILABLE_TEXT, status=503, content_type="text/plain", headers={"Retry-After": "5"})
