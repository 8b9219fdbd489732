"""Who is behind a socket: its session and user, and how much of this process one user may take."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from importlib import import_module
from types import SimpleNamespace
from typing import Any, ParamSpec, Protocol, TypeVar, cast
from weakref import WeakValueDictionary

from channels.sessions import CookieMiddleware
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.base import UpdateError
from django.db import DatabaseError, InterfaceError, OperationalError

from common.asgi import Application, Receive, Send
from common.database import QueryThreads
from common.loops import PerLoop
from common.seldom import SeldomLine
from common.sessions import note_use

logger = logging.getLogger(__name__)

MAX_SOCKETS = 20  # per user and process
CLOSE_TOO_MANY = 4429
TURN_SECONDS = 4.0  # how long a query waits for other queries of the same user

P = ParamSpec("P")
T = TypeVar("T")

run_query = QueryThreads("socket-query", 4).run


class Socket(Protocol):
    """A socket as `UserSockets` sees it."""

    async def end(self, code: int) -> None:
        """Close the socket."""


class UserSockets:
    """All sockets of a user in this process, whichever session they are logged in with.

    Their queries run one at a time, so one user never takes all the threads. Beyond MAX_SOCKETS the oldest socket is
    closed: refusing the new one would lock out a person whose browser left half-open sockets behind.
    """

    def __init__(self) -> None:
        self._sockets: dict[Socket, None] = {}
        self._turn = asyncio.Lock()
        self._handshakes = 0
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self, query: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Like `QueryThreads.run`, but also raises OperationalError if its turn does not come within `TURN_SECONDS`."""
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turn.acquire()
        except TimeoutError as error:
            raise OperationalError("Earlier queries of this user took too long.") from error
        try:
            return await run_query(query, *arguments, **keywords)
        finally:
            self._turn.release()

    @contextmanager
    def handshake(self) -> Iterator[None]:
        """Count a socket that is not open yet. Raises OperationalError if MAX_SOCKETS of this user are waiting."""
        if self._handshakes >= MAX_SOCKETS:
            raise OperationalError(f"{MAX_SOCKETS} handshakes of one user are waiting already.")
        self._handshakes += 1
        try:
            yield
        finally:
            self._handshakes -= 1

    def add(self, socket: Socket) -> None:
        self._sockets[socket] = None
        if len(self._sockets) > MAX_SOCKETS:
            oldest = next(iter(self._sockets))
            self.remove(oldest)
            task = asyncio.create_task(oldest.end(CLOSE_TOO_MANY))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def remove(self, socket: Socket) -> None:
        self._sockets.pop(socket, None)


_by_user: PerLoop[WeakValueDictionary[int, UserSockets]] = PerLoop(lambda loop: WeakValueDictionary())


def sockets_of(user: Any) -> UserSockets:
    """The same object while any socket of the user refers to it."""
    by_user = _by_user.of(asyncio.get_running_loop())
    sockets = by_user.get(user.pk)
    if sockets is None:
        sockets = by_user[user.pk] = UserSockets()
    return sockets


SessionStore = import_module(settings.SESSION_ENGINE).SessionStore


def user_of(session_key: str | None) -> Any:
    """The user who is logged in with a session now. Prolongs the session, because an open page is in use."""
    session = SessionStore(session_key)
    user = get_user(cast("Any", SimpleNamespace(session=session)))  # all that it asks of a request
    if user.is_authenticated:
        note_use(session)
        if session.modified:
            try:
                session.save()
            except UpdateError:  # it ended in the meantime
                return AnonymousUser()
    return user


database_failed = SeldomLine(logger, logging.ERROR)


class Handshake:
    """Adds `user` and `session_key` to a socket's scope.

    Channels has middleware for this, but its queries share one thread. This also abandons the work for a client that
    has left, and answers a handshake with 503 while the database does not respond.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        client = Client(receive, send, cast("asyncio.Task[Any]", asyncio.current_task()))
        session_key = scope["cookies"].get(settings.SESSION_COOKIE_NAME)
        try:
            await client.connect()
            user = await run_query(user_of, session_key)
            scope = scope | {"user": user, "session_key": session_key}
            await self._application(scope, client.receive, client.send)
        except (DatabaseError, InterfaceError) as error:
            if client.is_answered:
                raise
            database_failed.write("Handshakes are refused because the database is not responding: %r", error)
            await refuse(scope, send)
        except asyncio.CancelledError:
            if not client.has_left:
                raise
        finally:
            client.forget()


class Client:
    """The other end of a socket. Cancels `task` if it leaves before it is answered."""

    def __init__(self, receive: Receive, send: Send, task: "asyncio.Task[Any]") -> None:
        self._receive, self._send, self._task = receive, send, task
        self._first: dict[str, Any] | None = None
        self._next: asyncio.Future[dict[str, Any]] | None = None
        self.is_answered = self.has_left = False

    async def connect(self) -> None:
        self._first = await self._receive()
        # Until it is answered, the only event a client can send is that it leaves.
        self._next = asyncio.ensure_future(self._receive())
        self._next.add_done_callback(self._cancel_if_left)

    def _cancel_if_left(self, next_: "asyncio.Future[dict[str, Any]]") -> None:
        if not self.is_answered and not next_.cancelled() and next_.exception() is None:
            self.has_left = True
            self._task.cancel()

    async def receive(self) -> dict[str, Any]:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if self._next is not None:
            next_, self._next = self._next, None
            return await next_
        return await self._receive()

    def forget(self) -> None:
        """Stop waiting for the client's next event."""
        if self._next is not None:
            self._next.cancel()

    async def send(self, event: dict[str, Any]) -> None:
        self.is_answered = True
        await self._send(event)


async def refuse(scope: dict[str, Any], send: Send) -> None:
    """Answer a handshake with 503 if the server can (an ASGI extension), else with the server's own refusal."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1013})
        return
    headers = [(b"retry-after", b"5"), (b"content-type", b"text/plain")]
    await send({"type": "websocket.http.response.start", "status": HTTPStatus.SERVICE_UNAVAILABLE, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"The database is not responding."})


def with_login(application: Any) -> Any:
    """`application` for sockets, wrapped so that their cookies and user are read first."""
    return CookieMiddleware(Handshake(application))
