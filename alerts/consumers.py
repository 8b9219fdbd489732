"""The socket `/api/ws/security`: what was missed, in order, then every alert as it is stored."""

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any, cast
from urllib.parse import parse_qs

from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DatabaseError, InterfaceError

from alerts.broadcast import encode
from alerts.hub import Frames, hub
from alerts.logins import database_failed, login_of, user_of
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
PAGE_ALERTS = 500
INBOX_LIMIT = 100  # what may wait for a slow reader
WATCH_SECONDS = 25.0  # between looks at a socket whose client does not ping; two of them are within a minute
INT64_MAX = 2**63 - 1


class Ping:
    """A client asks whether it has everything."""


class SecurityAlertConsumer(AsyncWebsocketConsumer):
    """Sends `{"type": "alert", "data": …}` for the alerts of the user's tenants, in id order and without gaps.

    The database is the truth; frames from the hub are a hint. Where the hub can't vouch that none is
    missing, the socket reads from the database what comes after the last id sent. `?since=ID` begins
    after ID. A client sends `{"type": "ping"}` and is answered `{"type": "pong"}`, after anything that
    it was still owed.
    """

    channel_layer_alias = ""  # none: the hub listens for all sockets
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
        self.login = login_of(self.user)
        with self.login.handshake():
            self.tenant_ids = await self.login.run(tenants_of, self.user)
            # Read before the socket is open: whatever is stored from then on is sent.
            newest = await self.login.run(newest_id, self.user)
        if self.tenant_ids == frozenset():
            return await self.close(code=CLOSE_NO_TENANT)
        # An id from the future (the database was set back) must not hide what comes before it.
        self.last_id = newest if since is None else min(since, newest)
        await self.accept()
        self.inbox: asyncio.Queue[Frames | Ping | None] = asyncio.Queue()  # bounded below
        self.has_asked = False  # a ping waits in the inbox
        self.has_ended = False
        self.is_behind = False
        self.leaving: str | None = None  # the frame that the server is taking from us
        self.is_checked = True
        hub().add(self)
        self.login.add(self)
        self.tasks = [asyncio.create_task(self.work()), asyncio.create_task(self.watch())]

    async def disconnect(self, code: int) -> None:
        self.stop()

    def stop(self) -> None:
        if self.tasks:
            hub().remove(self)
            self.login.remove(self)
        for task in self.tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def deliver(self, frames: Frames | None) -> None:
        """Take frames from the hub. A reader too slow for them loses some, and catches up when it has read."""
        if self.inbox.qsize() < INBOX_LIMIT:
            self.inbox.put_nowait(frames)
        else:
            self.is_behind = True

    async def end(self, code: int) -> None:
        """Close it once, whoever finds a reason first; the client may have gone meanwhile."""
        if self.has_ended:
            return
        self.has_ended = True
        self.stop()
        with suppress(OSError, RuntimeError):
            await self.close(code=code)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Frames other than a ping mean nothing to us. A ping that comes while one waits is answered with it."""
        if not self.has_asked and is_ping(text_data):
            self.has_asked = True
            self.inbox.put_nowait(Ping())

    async def work(self) -> None:
        """All that is sent is sent from here, one after the other."""
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
            database_failed.write("Sockets are closed; their pages will come again: %r", error)
            await self.end(CLOSE_FAILED)
        except Exception:
            logger.exception("A socket is closed; its page will come again")
            await self.end(CLOSE_FAILED)

    async def watch(self) -> None:
        """Whatever the client does or does not do: let nobody listen who may not, and wait for nobody for ever.

        A client that is too slow comes again, and catches up from the last id that it has.
        """
        code: int | None
        while True:
            leaving = self.leaving
            await asyncio.sleep(WATCH_SECONDS)
            if leaving is not None and self.leaving is leaving:
                code = CLOSE_TOO_SLOW
            elif self.is_checked:  # by a ping, meanwhile
                self.is_checked = False
                continue
            else:
                try:
                    code = await self.refusal()
                except Exception as error:  # noqa: BLE001  whatever it is, the next look may succeed
                    database_failed.write("Sockets could not be looked at; they will be again: %r", error)
                    continue
            if code:
                return await self.end(code)

    async def send_text(self, text: str) -> None:
        """Raises ConnectionResetError where the client is gone, which servers tell in words of their own."""
        self.leaving = text
        try:
            await self.send(text_data=text)
        except (OSError, RuntimeError) as error:
            raise ConnectionResetError from error
        self.leaving = None

    async def catch_up(self) -> None:
        """Send what the database has after the last id sent."""
        while alerts := await self.login.run(alerts_after, self.user, self.last_id):
            for data in alerts:
                await self.send_text(encode(data))
            self.last_id = cast("int", alerts[-1]["id"])

    async def pass_on(self, frames: Frames) -> None:
        for pk, text in frames:
            if pk > self.last_id:  # what it has read from the database may come once more
                await self.send_text(text)
                self.last_id = pk

    async def answer(self) -> None:
        """A ping also asks whether the login and the memberships still hold."""
        if code := await self.refusal():
            return await self.end(code)
        self.is_checked = True
        await self.catch_up()
        await self.send_text('{"type":"pong"}')

    async def refusal(self) -> int | None:
        """The code to close with, where the login has ended or the memberships have changed."""
        return await self.login.run(self._refusal)

    def _refusal(self) -> int | None:
        user = user_of(cast("Any", self.scope)["session_key"])
        if not user.is_authenticated or user.pk != self.user.pk:
            return CLOSE_NOT_LOGGED_IN
        return CLOSE_NO_TENANT if tenants_of(user) != self.tenant_ids else None


def parse_since(query_string: bytes) -> int | None:
    """The id in `?since=ID`, None without one. Raises ValueError where it is not an id."""
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
    """The ids of the tenants whose alerts `user` may see. None: of all."""
    if user.is_superuser:
        return None
    with acting_as(user):
        return frozenset(Tenant.objects.for_user(user).values_list("pk", flat=True))


def newest_id(user: Any) -> int:
    with acting_as(user):
        return SecurityAlert.objects.for_user(user).newest_id()


def alerts_after(user: Any, last_id: int) -> list[dict[str, Any]]:
    """The next page of alerts that `user` may see, oldest first."""
    visible = SecurityAlert.objects.for_user(user).select_related("tenant", "device")
    with acting_as(user):
        return [represent(alert) for alert in visible.filter(id__gt=last_id).order_by("id")[:PAGE_ALERTS]]
