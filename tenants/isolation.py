"""Row-level security: on PostgreSQL a query that forgets to ask whose rows it may show, shows none.

For a page or a socket the transaction changes to the role PEOPLE_ROLE, and what that may see is decided by the policies
that `tenants.tables` makes with each table, from the id of the user and the members of tenants.
https://www.postgresql.org/docs/current/ddl-rowsecurity.html

The tables' owner, whom no policy binds, asks for all else, so the ingest path pays nothing: devices, registrations,
health, commands and migrations; what middleware asks before and after a page (the session, its user, failed logins);
and within a page what `bypass_isolation` says. A page itself never asks as the owner by mistake: `refuse_strays`.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, cast

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

logger = logging.getLogger(__name__)

UNAVAILABLE_TEXT = (
    "This took too long, or the database does not answer just now. Try again in a few seconds, or ask for less."
)
PEOPLE_ROLE = "ingestcloud_people"
# A device is known by its key, and what only says that we are here asks for no rows. Everything else acts as its user.
DEVICE_PATHS = frozenset({"/v1/ingest", "/api/v1/devices/register", "/healthz", "/readyz"})
LOGIN_PATHS = frozenset({"/login/", "/admin/login/"})
READS = ("GET", "HEAD", "OPTIONS", "TRACE")

# What a page or a socket may take: a statement at most so long, and none is begun after as long again.
STATEMENT_SECONDS = 4.0
# A setting of a role does not count where the role is reached by a change.
ACT_AS = f"""
SELECT set_config('role', %s, true), set_config('ingestcloud.user', %s, true),
       set_config('statement_timeout', '{STATEMENT_SECONDS:g}s', true)
"""


class _Page:
    """What acts as a user, on one connection, until it is over."""

    def __init__(self, user: Any) -> None:
        self.user_id = str(user.pk or 0)
        self.connection = connections[DEFAULT_DB_ALIAS]
        self.is_over = False
        self.bypasses = False


_page: ContextVar[_Page | None] = ContextVar("page", default=None)


def refuse_strays(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Raises RuntimeError for a query of a page that its own transaction does not contain.

    In another thread, or when the page is over, it would be the owner's: of all tenants, and committed whatever becomes
    of the page. A task or thread that asgiref or asyncio begins for a page has its context, and so is found here.
    """
    page = _page.get()
    if page is not None and (page.is_over or context["connection"] is not page.connection):
        raise RuntimeError("A page asks the database by its own thread alone, and until it is over.")
    return execute(sql, params, many, context)


def watch_connection(connection: Any, **kwargs: object) -> None:
    """Receives `connection_created`, which is sent for each thread's."""
    if refuse_strays not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, refuse_strays)  # Django takes its own off the other end


@contextmanager
def acting_as(user: Any) -> Iterator[None]:
    """One transaction, in which the database shows what `user` may see and lets them change no other row.

    It ends in time: OperationalError is raised where a statement takes longer than STATEMENT_SECONDS, waiting for a
    lock included, or all of them longer than twice that. On SQLite, which has no users, that is all that it does.
    """
    outer, page = _page.get(), _Page(user)
    is_within = connection.in_atomic_block
    token = _page.set(page)
    try:
        with _in_time(), _role(PEOPLE_ROLE, page.user_id):
            yield
    finally:
        page.is_over = True
        _page.reset(token)
    if is_within:  # with the transaction it is over by itself; within another we have to go back
        _act(*((PEOPLE_ROLE, outer.user_id) if outer else ("none", "")))


@contextmanager
def bypass_isolation() -> Iterator[None]:
    """Within `acting_as`: what must be asked of all rows, such as whether a name is taken. Elsewhere: nothing."""
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
    _act(PEOPLE_ROLE, page.user_id)


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
    """Looks at the clock before each statement (Django's "database instrumentation")."""
    end = time.monotonic() + STATEMENT_SECONDS

    def execute_in_time(execute: Callable[..., Any], *arguments: Any) -> Any:
        if time.monotonic() > end:
            raise OperationalError("The time for this page is over.")
        return execute(*arguments)

    return connection.execute_wrapper(execute_in_time)


class TenantIsolationMiddleware:
    """A page is one transaction that acts as its user, and a 503 while the database does not answer in time.

    What fails is rolled back. Behind the middleware that knows who the user is.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info in DEVICE_PATHS:
            return self.get_response(request)
        try:
            with _transaction(request), acting_as(request.user):
                response = self.get_response(request)
                if response.streaming:
                    response.close()
                    raise RuntimeError("A page is one transaction, which is over before a stream begins.")
                if response.status_code >= 500:
                    _roll_back()
            if getattr(response, "id_is_taken", False):
                sequences.set_forward()
            return response
        except (OperationalError, InterfaceError, InternalError) as error:
            return unavailable(error)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Django makes a response of what a view raises, before it comes to `__call__`."""
        if request.path_info in DEVICE_PATHS:
            return None
        _roll_back()
        id_is_taken = isinstance(exception, IntegrityError) and sequences.gave_a_taken_id(exception)
        if not id_is_taken and not isinstance(exception, OperationalError | InterfaceError | InternalError):
            return None
        response = unavailable(exception)
        cast("Any", response).id_is_taken = id_is_taken
        return response


def _roll_back() -> None:
    if connection.in_atomic_block:
        transaction.set_rollback(True)


def _transaction(request: HttpRequest) -> AbstractContextManager[None]:
    """SQLite's, for a page; on PostgreSQL `acting_as` has one.

    A transaction that may write locks all other writers out: so only those who are logged in and write begin one. What
    else writes takes the lock then, and is a 503 if another has written since it first read. A login has none, because
    nobody else should wait while the password is hashed: each of its statements stands for itself.
    """
    if connection.vendor == "postgresql" or request.path_info in LOGIN_PATHS:
        return nullcontext()
    writes = request.method not in READS and request.user.is_authenticated
    return _begin("IMMEDIATE" if writes else "DEFERRED")


@contextmanager
def _begin(mode: str) -> Iterator[None]:
    """A transaction of SQLite in another mode than that of the settings."""
    connection.ensure_connection()  # which sets the mode
    database: Any = connections[DEFAULT_DB_ALIAS]
    usual, database.transaction_mode = database.transaction_mode, mode
    try:
        with transaction.atomic():
            yield
    finally:
        database.transaction_mode = usual


def unavailable(error: Exception) -> HttpResponse:
    """503 for a person, or by `ProblemDetailsMiddleware` for a program."""
    logger.error("The database failed: %r", error)
    return HttpResponse(UNAVAILABLE_TEXT, status=503, content_type="text/plain", headers={"Retry-After": "5"})
