"""What the sockets have in common: who may listen, in which order things are sent, and what a client may take."""

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any, cast
from urllib.parse import parse_qs

from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DatabaseError, InterfaceError

from alerts.hub import BaseHub, Delivery
from alerts.logins import database_failed, sockets_of, user_of
from tenants.isolation import acting_as
from tenants.models import Tenant

logger = logging.getLogger(__name__)

CLOSE_FAILED = 1011  # RFC 6455, section 7.4.1
CLOSE_BAD_SINCE = 4400
CLOSE_NOT_LOGGED_IN = 4401
CLOSE_NO_TENANT = 4403
CLOSE_TOO_SLOW = 4408
INBOX_LIMIT = 100  # deliveries that may wait for a slow reader
WATCH_SECONDS = 25.0  # between checks of a socket whose client does not ping; two checks fit into a minute
INT64_MAX = 2**63 - 1


class Ping:
    """A client's question whether it has received everything."""


class LiveSocket(AsyncWebsocketConsumer):
    """Sends what has a number after `last`, in the order of the numbers, as it is stored.

    The database is the source of truth; deliveries from the hub are a hint. If the hub can't guarantee that nothing is
    missing, the socket reads everything after `last` from the database. `?since=NUMBER` starts after NUMBER.
    `{"type": "ping"}` from a client is answered with `{"type": "pong"}`, after anything that it was still owed.
    """

    last: int
    channel_layer_alias = ""  # no channel of its own: the hub listens for all sockets
    tenant_ids: frozenset[int] | None  # None: all

    async def connect(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        try:
            self.parse(parse_qs(self.scope["query_string"].decode("latin1"), keep_blank_values=True))
        except ValueError:
            return await self.close(code=CLOSE_BAD_SINCE)
        self.user = cast("Any", self.scope["user"])
        if not self.user.is_authenticated:
            return await self.close(code=CLOSE_NOT_LOGGED_IN)
        self.user_sockets = sockets_of(self.user)
        with self.user_sockets.handshake():
            self.tenant_ids = await self.user_sockets.run(tenants_of, self.user)
            # Read before the socket is open: everything stored from then on is sent.
            newest = await self.user_sockets.run(self.newest, self.user)
        if self.tenant_ids == frozenset():
            return await self.close(code=CLOSE_NO_TENANT)
        # A number from the future (the database was restored from a backup) must not hide what has lower ones.
        self.is_from_future = self.since is not None and self.since > newest
        self.last = newest if self.since is None or self.is_from_future else self.since
        await self.accept()
        self.inbox: asyncio.Queue[Delivery | Ping | None] = asyncio.Queue()  # bounded by `deliver` and `receive`
        self.has_asked = False  # a ping is waiting in the inbox
        self.has_ended = False
        self.is_behind = False
        self.leaving: str | None = None  # the frame being handed to the server
        self.is_checked = True
        self.hub().add(self)
        self.user_sockets.add(self)
        self.tasks = [asyncio.create_task(self.work()), asyncio.create_task(self.watch())]

    async def disconnect(self, code: int) -> None:
        self.stop()

    def stop(self) -> None:
        if self.tasks:
            self.hub().remove(self)
            self.user_sockets.remove(self)
        for task in self.tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def deliver(self, frames: Delivery | None) -> None:
        """Accept frames from the hub. A reader that is too slow loses some, and catches up once its inbox is empty.

        Until then it gets no later ones either: they would hide that those before them are missing.
        """
        if not self.is_behind and self.inbox.qsize() < INBOX_LIMIT:
            self.inbox.put_nowait(frames)
        else:
            self.is_behind = True

    async def end(self, code: int) -> None:
        """Close the socket, once, with the first code given. The client may have left already."""
        if self.has_ended:
            return
        self.has_ended = True
        self.stop()
        with suppress(OSError, RuntimeError):
            await self.close(code=code)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Accept a ping and ignore anything else. One pong answers all pings that arrive while one is waiting."""
        if not self.has_asked and is_ping(text_data):
            self.has_asked = True
            self.inbox.put_nowait(Ping())

    async def work(self) -> None:
        """Send everything that the client gets, in order."""
        try:
            await self.begin()
            while True:
                match await self.inbox.get():
                    case Ping():
                        self.has_asked = False
                        await self.answer()
                    case None:
                        await self.go_on()
                    case frames:
                        await self.pass_on(frames)
                if self.is_behind and self.inbox.empty():
                    self.is_behind = False
                    await self.go_on()
        except ConnectionResetError:
            pass
        except (DatabaseError, InterfaceError) as error:
            database_failed.write("Closing sockets; their pages will reconnect: %r", error)
            await self.end(CLOSE_FAILED)
        except Exception:
            logger.exception("Closing a socket; its page will reconnect")
            await self.end(CLOSE_FAILED)

    async def watch(self) -> None:
        """Whatever the client does, close the socket once its user may no longer listen, or if it stops reading.

        A client that was too slow reconnects, and catches up from the last id that it has.
        """
        code: int | None
        while True:
            leaving = self.leaving
            await asyncio.sleep(WATCH_SECONDS)
            if leaving is not None and self.leaving is leaving:
                code = CLOSE_TOO_SLOW
            elif self.is_checked:  # by a ping in the meantime
                self.is_checked = False
                continue
            else:
                try:
                    code = await self.refusal()
                except Exception as error:  # noqa: BLE001  whatever it is, the next check may succeed
                    database_failed.write("Sockets could not be checked; they will be later: %r", error)
                    continue
            if code:
                return await self.end(code)

    async def send_text(self, text: str) -> None:
        """Raises ConnectionResetError if the client has left; each server raises its own exception for that."""
        self.leaving = text
        try:
            await self.send(text_data=text)
        except (OSError, RuntimeError) as error:
            raise ConnectionResetError from error
        self.leaving = None

    def parse(self, query: dict[str, list[str]]) -> None:
        """Read the query of the address. Raises ValueError."""
        self.since = number_in(query, "since")

    def hub(self) -> BaseHub:
        raise NotImplementedError

    def newest(self, user: Any) -> int:
        """The highest number that `user` may see."""
        raise NotImplementedError

    async def begin(self) -> None:
        """Send what the client missed before it connected."""
        await self.catch_up()

    async def go_on(self) -> None:
        """Catch up, or start anew if the database no longer has `last`: it was restored, or a replica took over.

        Of all tenants, because `last` may be the number of another tenant's row.
        """
        newest = await self.user_sockets.run(self.hub().newest)
        if newest < self.last:
            await self.start_anew(newest)
        else:
            await self.catch_up()

    async def catch_up(self) -> None:
        """Send everything after `last`, from the database."""
        raise NotImplementedError

    async def start_anew(self, newest: int) -> None:
        """Go on after `newest`, although the client may not have what is before it."""
        self.last = newest
        self.hub().start_anew(newest)

    async def pass_on(self, frames: Delivery) -> None:
        for number, text in frames:
            if number > self.last:  # what was read from the database may be delivered too
                if text:
                    await self.send_text(text)
                self.last = number

    async def answer(self) -> None:
        """Answer a ping, which also checks that the login and the memberships are still valid."""
        if code := await self.refusal():
            return await self.end(code)
        self.is_checked = True
        await self.go_on()
        await self.send_text('{"type":"pong"}')

    async def refusal(self) -> int | None:
        """The code to close with if the login has ended or the memberships have changed, else None."""
        return await self.user_sockets.run(self._refusal)

    def _refusal(self) -> int | None:
        user = self._logged_in()
        if user is None:
            return CLOSE_NOT_LOGGED_IN
        if tenants_of(user) == self.tenant_ids:
            return None
        # A user who was disabled between the two questions sees no tenant either.
        return CLOSE_NO_TENANT if self._logged_in() else CLOSE_NOT_LOGGED_IN

    def _logged_in(self) -> Any | None:
        """The user as they are now, None if it is no longer the one who opened the socket."""
        user = user_of(cast("Any", self.scope)["session_key"])
        return user if user.is_authenticated and user.pk == self.user.pk else None


def number_in(query: dict[str, list[str]], name: str) -> int | None:
    """A number of 64 bits in a query, None without one. Raises ValueError if it is not a number."""
    values = query.get(name)
    if values is None:
        return None
    if not (values[-1].isascii() and values[-1].isdecimal() and len(values[-1]) <= 19):
        raise ValueError(f"{name} is not a number")
    return min(int(values[-1]), INT64_MAX)


def is_ping(text: str | None) -> bool:
    try:
        content = json.loads(text or "")
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("type") == "ping"


def tenants_of(user: Any) -> frozenset[int] | None:
    """The ids of the tenants whose alerts `user` may see. None means all tenants."""
    if user.is_superuser:
        return None
    with acting_as(user):
        return frozenset(Tenant.objects.for_user(user).values_list("pk", flat=True))
