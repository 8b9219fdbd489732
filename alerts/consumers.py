"""The socket `/api/ws/security`: what was missed, in order, then every alert as it is stored."""

import json
from typing import Any, cast
from urllib.parse import parse_qs

from channels.auth import get_user
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer

from alerts.broadcast import ALL_TENANTS, frame, tenant_group
from alerts.models import SecurityAlert
from alerts.representation import represent
from devices.models import Tenant

CLOSE_BAD_SINCE = 4400
CLOSE_NOT_LOGGED_IN = 4401
CLOSE_NO_TENANT = 4403
PAGE = 500
INT64_MAX = 2**63 - 1


class SecurityAlertConsumer(AsyncWebsocketConsumer):
    """Sends `{"type": "alert", "data": …}` for the alerts of the user's tenants, in id order and without gaps.

    The database is the truth; a message on the layer is a hint. It carries the id that came before its
    alerts: where that is not the last id sent, the socket reads from the database instead. So nothing is
    missed when messages are lost or overtake each other. `?since=ID` begins after ID. A client sends
    `{"type": "ping"}` and is answered `{"type": "pong"}`, after anything that it was still owed.
    """

    async def connect(self) -> None:
        try:
            since = parse_since(self.scope["query_string"])
        except ValueError:
            return await self.close(code=CLOSE_BAD_SINCE)
        self.user = cast("Any", self.scope["user"])
        if not self.user.is_authenticated:
            return await self.close(code=CLOSE_NOT_LOGGED_IN)
        self.groups = await groups_of(self.user)
        if not self.groups:
            return await self.close(code=CLOSE_NO_TENANT)
        for group in self.groups:
            await self.channel_layer.group_add(group, self.channel_name)
        await self.accept()
        # An id from the future (the database was set back) must not hide what comes before it.
        newest = await newest_id(self.user)
        self.last_id = newest if since is None else min(since, newest)
        await self.catch_up()

    async def catch_up(self) -> None:
        """Send what the database has after the last id sent."""
        while alerts := await alerts_after(self.user, self.last_id):
            for data in alerts:
                await self.send(text_data=frame(data))
            self.last_id = alerts[-1]["id"]

    async def alerts_stored(self, message: dict[str, Any]) -> None:
        """A hint from the layer. One group tells of every alert that this socket may see, or else it asks."""
        if message["last"] <= self.last_id:
            return
        if len(self.groups) > 1 or message["after"] != self.last_id:
            return await self.catch_up()
        for text in message["frames"]:
            await self.send(text_data=text)
        self.last_id = message["last"]

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A ping also asks whether the login and the memberships still hold. Other frames mean nothing to us."""
        if not is_ping(text_data):
            return
        user = await current_user(self.scope["session"])
        if not user.is_authenticated:
            return await self.close(code=CLOSE_NOT_LOGGED_IN)
        if await groups_of(user) != self.groups:
            return await self.close(code=CLOSE_NO_TENANT)
        await self.catch_up()
        await self.send(text_data='{"type":"pong"}')


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


async def current_user(session: Any) -> Any:
    """Who is logged in now: the session in the scope was read when the socket opened."""
    fresh = session.__class__(session.session_key)  # type() would name the lazy wrapper
    return await get_user(cast("Any", {"session": fresh}))


@database_sync_to_async
def groups_of(user) -> list[str]:
    """The groups that together tell of every alert `user` may see."""
    if user.is_superuser:
        return [ALL_TENANTS]
    return [tenant_group(pk) for pk in Tenant.objects.for_user(user).order_by("pk").values_list("pk", flat=True)]


@database_sync_to_async
def newest_id(user) -> int:
    newest = SecurityAlert.objects.for_user(user).order_by("-id").values_list("id", flat=True).first()
    return newest or 0


@database_sync_to_async
def alerts_after(user, last_id: int) -> list[dict[str, Any]]:
    """The next page of alerts that `user` may see, oldest first."""
    visible = SecurityAlert.objects.for_user(user).select_related("tenant", "device")
    return [represent(alert) for alert in visible.filter(id__gt=last_id).order_by("id")[:PAGE]]
