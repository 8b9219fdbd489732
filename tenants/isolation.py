"""Row-level security: on PostgreSQL a query that forgets to ask whose rows it may show, shows none.

Devices are served by the database's own user, whom no policy binds, so the ingest path pays nothing. For a page or a
socket the transaction changes to the role PEOPLE_ROLE, and what that may see is decided by the policies that
`tenants.tables` makes with each table, from the id of the user and the members of tenants.
https://www.postgresql.org/docs/current/ddl-rowsecurity.html
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from django.db import InterfaceError, InternalError, OperationalError, connection, transaction
from django.http import HttpRequest, HttpResponse

logger = logging.getLogger(__name__)

UNAVAILABLE_TEXT = (
    "This took too long, or the database does not answer just now. Try again in a few seconds, or ask for less."
)
PEOPLE_ROLE = "ingestcloud_people"
# A device is known by its key, and what only says that we are here asks for no rows. Everything else acts as its user.
DEVICE_PATHS = frozenset({"/v1/ingest", "/api/v1/devices/register", "/healthz", "/readyz"})
READS = ("GET", "HEAD", "OPTIONS", "TRACE")

# What a page or a socket may take: a statement at most so long, and none is begun after as long again.
STATEMENT_SECONDS = 4.0
WHO_ACTS = "SELECT current_setting('role'), coalesce(current_setting('ingestcloud.user', true), '')"
# A setting of a role does not count where the role is reached by a change.
ACT_AS = f"""
SELECT set_config('role', %s, true), set_config('ingestcloud.user', %s, true),
       set_config('statement_timeout', '{STATEMENT_SECONDS:g}s', true)
"""


@contextmanager
def acting_as(user: Any) -> Iterator[None]:
    """One transaction, in which the database shows what `user` may see and lets them change no other row.

    It ends in time: OperationalError is raised where a statement takes longer than STATEMENT_SECONDS, waiting for a
    lock included, or all of them longer than twice that. On SQLite, which has no users, that is all that it does.
    """
    with _in_time(), _role(PEOPLE_ROLE, str(user.pk or 0)):
        yield


@contextmanager
def bypass_isolation() -> Iterator[None]:
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
            with acting_as(request.user), transaction.atomic() if _is_atomic(request) else nullcontext():
                response = self.get_response(request)
                if response.status_code >= 500 and _is_atomic(request):
                    transaction.set_rollback(True)
                return response
        except (OperationalError, InterfaceError, InternalError) as error:
            return unavailable(error)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Django makes a response of what a view raises, before it comes to `__call__`."""
        if request.path_info in DEVICE_PATHS:
            return None
        if _is_atomic(request):
            transaction.set_rollback(True)
        if isinstance(exception, OperationalError | InterfaceError | InternalError):
            return unavailable(exception)
        return None


def _is_atomic(request: HttpRequest) -> bool:
    """On SQLite a transaction locks all other writers out: so only those who are logged in, and write, have one.

    Somebody who logs in is not logged in yet: nobody else waits while the password is hashed.
    """
    return connection.vendor == "postgresql" or (request.method not in READS and request.user.is_authenticated)


def unavailable(error: Exception) -> HttpResponse:
    """503 for a person, or by `ProblemDetailsMiddleware` for a program."""
    logger.error("The database failed: %r", error)
    return HttpResponse(UNAVAILABLE_TEXT, status=503, content_type="text/plain", headers={"Retry-After": "5"})
