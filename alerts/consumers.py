"""The socket `/api/ws/security`: the alerts that were missed, in order, then every new one as it is stored."""

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any, cast
from urllib.parse import parse_qs

from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DatabaseError, InterfaceError

from alerts.broadcast import encode
from alerts.hub import Delivery, hub
from alerts.logins import database_failed, sockets_of, user_of
from alerts.models import SecurityAlert
from alerts.representation import represent
from tenants.isolation import acting_as
from tenants.models import Tenant

logger = logging.getLogger(__name__)

CLOSE_FAILED = 1011  # RFC 6455, section 7.4.1
CLOSE_BAD_SINCE = 4400
CLOSE_NOT_LOGGED_IN = 4401
CLOSE_NO_TENANT = 4403
CLOSE_TOO_SLOW = 4408
PAGE_ALERTS = 500  # read at once
INBOX_LIMIT = 100  # deliveries that may wait for a slow reader
WATCH_SECONDS = 25.0  # between checks of a socket whose client does not ping; two checks fit into a minute
INT64_MAX = 2**63 - 1


class Ping:
    """A client's question whether it has received everything."""


class SecurityAlertConsumer(AsyncWebsocketConsumer):
    """Sends `{"type": "alert", "data": …}` for the alerts of the user's tenants, in id order and without gaps.

    The database is the source of truth; frames from the hub are a hint. If the hub can't guarantee that
    no frame is missing, the socket reads everything after the last id sent from the database. `?since=ID`
    starts after ID. `{"type": "ping"}` from a client is answered with `{"type": "pong"}`, after any alerts
    that it was still owed.
    """

    channel_layer_alias = ""  # no channel of its own: the hub listens for all sockets
    tenant_ids: frozenset[int] | None

    async def connect(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        try:
            since = parse_since(self.scope["query_string"])
        except ValueError:
            return await self.close(code=CLOSE_BAD_SINCE)
        self.user = cast("Any", self.scope["user"])
        if not self.user.is_authenticated:
            return await self.close(code=CLOSE_NOT_LOGGED_IN)
        self.user_sockets = sockets_of(self.user)
        with self.user_sockets.handshake():
            self.tenant_ids = await self.user_sockets.run(tenants_of, self.user)
            # Read before the socket is open: every alert stored from then on is sent.
            newest = await self.user_sockets.run(newest_id, self.user)
        if self.tenant_ids == frozenset():
            return await self.close(code=CLOSE_NO_TENANT)
        # An id from the future (the database was restored from a backup) must not hide the alerts before it.
        self.last_id = newest if since is None else min(since, newest)
        await self.accept()
        self.inbox: asyncio.Queue[Delivery | Ping | None] = asyncio.Queue()  # bounded by `deliver` and `receive`
        self.has_asked = False  # a ping is waiting in the inbox
        self.has_ended = False
        self.is_behind = False
        self.leaving: str | None = None  # the frame being handed to the server
        self.is_checked = True
        hub().add(self)
        self.user_sockets.add(self)
        self.tasks = [asyncio.create_task(self.work()), asyncio.create_task(self.watch())]

    async def disconnect(self, code: int) -> None:
        self.stop()

    def stop(self) -> None:
        if self.tasks:
            hub().remove(self)
            self.user_sockets.remove(self)
        for task in self.tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def deliver(self, frames: Delivery | None) -> None:
        """Accept frames from the hub. A reader that is too slow loses some, and catches up once its inbox is empty."""
        if self.inbox.qsize() < INBOX_LIMIT:
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
            await self.catch_up()
            while True:
                match await self.inbox.get():
                    case Ping():
                        self.has_asked = False
                        await self.answer()
                    case None:
                        await self.catch_up()
                    case frames:
                        await self.pass_on(frames)
                if self.is_behind and self.inbox.empty():
                    self.is_behind = False
                    await self.catch_up()
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

    async def catch_up(self) -> None:
        """Send every alert after the last id sent, from the database."""
        while alerts := await self.user_sockets.run(alerts_after, self.user, self.last_id):
            for data in alerts:
                await self.send_text(encode(data))
            self.last_id = cast("int", alerts[-1]["id"])

    async def pass_on(self, frames: Delivery) -> None:
        for pk, text in frames:
            if pk > self.last_id:  # an alert already read from the database may arrive as a frame too
                await self.send_text(text)
                self.last_id = pk

    async def answer(self) -> None:
        """Answer a ping, which also checks that the login and the memberships are still valid."""
        if code := await self.refusal():
            return await self.end(code)
        self.is_checked = True
        await self.catch_up()
        await self.send_text('{"type":"pong"}')

    async def refusal(self) -> int | None:
        """The code to close with if the login has ended or the memberships have changed, else None."""
        return await self.user_sockets.run(self._refusal)

    def _refusal(self) -> int | None:
        user = user_of(cast("Any", self.scope)["session_key"])
        if not user.is_authenticated or user.pk != self.user.pk:
            return CLOSE_NOT_LOGGED_IN
        return CLOSE_NO_TENANT if tenants_of(user) != self.tenant_ids else None


def parse_since(query_string: bytes) -> int | None:
    """The id in `?since=ID`, None without one. Raises ValueError if it is not an id."""
    values = parse_qs(query_string.decode("latin1"), keep_blank_values=True).get("since")
    if values is None:
        return None
    if not (values[-1].isascii() and values[-1].isdecimal() and len(values[-1]) <= 19):
        raise ValueError("since is not an id")
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


def newest_id(user: Any) -> int:
    with acting_as(user):
        return next(iter(SecurityAlert.objects.newest_of(user, 1).values_list("pk", flat=True)), 0)


def alerts_after(user: Any, last_id: int) -> list[dict[str, Any]]:
    """The next page of alerts that `user` may see, oldest first."""
    alerts = SecurityAlert.objects.select_related("tenant", "device", "group")
    with acting_as(user):
        return [represent(alert) for alert in alerts.next_of(user, last_id, PAGE_ALERTS)]
