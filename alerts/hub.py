"""One listener on the channel layer for all sockets of a process: a message is read once, not once a socket."""

import asyncio
import contextlib
import logging
from typing import Any, Protocol, cast

from channels.db import database_sync_to_async
from channels.layers import BaseChannelLayer, get_channel_layer

from alerts.broadcast import GROUP
from alerts.models import SecurityAlert

logger = logging.getLogger(__name__)

TRY_AGAIN = 1.0  # seconds until the next try to subscribe, while the layer or the database does not answer
OVERTAKEN = 0.1  # seconds that a message waits for the one before it

Hint = list[tuple[int, str]]  # alerts that were stored, in id order: their ids and frames


class Listener(Protocol):
    """Whoever wants to hear of alerts: of all where `tenant_ids` is None."""

    tenant_ids: frozenset[int] | None

    def tell(self, hint: Hint | None) -> None:
        """Take a hint without waiting. None: there may be alerts that no hint tells of."""


class Hub:
    """Listens while it has listeners, and tells each what is its own.

    Ids come from one sequence, in the order of commits, and a message has all of a transaction: so the first id of
    a message follows the last id of the one before, or something was missed.
    """

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._last = 0  # the newest id of which the listeners know, or were told to ask
        self._early: dict[int, list[tuple[int, int, str]]] = {}  # messages whose predecessor is awaited, by first id
        self._patience: asyncio.TimerHandle | None = None

    def add(self, listener: Listener) -> None:
        self._listeners.add(listener)
        if self._task is None:
            self._task = asyncio.create_task(self._listen())

    def remove(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _listen(self) -> None:
        layer = cast("BaseChannelLayer", get_channel_layer())  # settings always have one
        while True:
            try:
                await self._pass_on(layer)
            except Exception as error:  # noqa: BLE001  each layer has exceptions of its own
                logger.error("No word of new alerts; open pages ask the database meanwhile: %r", error)
                await asyncio.sleep(TRY_AGAIN)

    async def _pass_on(self, layer: BaseChannelLayer) -> None:
        channel = await layer.new_channel()
        try:
            await layer.group_add(GROUP, channel)
            self._last = await database_sync_to_async(SecurityAlert.objects.newest_id)()
            self._ask()  # something may have been stored before we could hear of it
            while True:
                self._take((await layer.receive(channel))["alerts"])
        finally:
            self._forget_early()
            with contextlib.suppress(Exception):
                await layer.group_discard(GROUP, channel)

    def _take(self, alerts: list[Any]) -> None:
        """Pass on a message in its turn: one that was overtaken is awaited for a moment."""
        first = alerts[0][1]
        if first <= self._last:
            return
        self._early[first] = alerts
        while following := self._early.pop(self._last + 1, None):
            self._tell(following)
            self._last = following[-1][1]
        if not self._early:
            self._forget_early()
        elif self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(OVERTAKEN, self._lose_patience)

    def _lose_patience(self) -> None:
        """Its alerts are lost on the way, or their transaction was: the database knows."""
        self._last = max(alerts[-1][1] for alerts in self._early.values())
        self._forget_early()
        self._ask()

    def _forget_early(self) -> None:
        self._early.clear()
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _ask(self) -> None:
        for listener in self._listeners:
            listener.tell(None)

    def _tell(self, alerts: list[tuple[int, int, str]]) -> None:
        hints: dict[frozenset[int] | None, Hint] = {}  # most listeners have the tenants of another
        for listener in self._listeners:
            ids = listener.tenant_ids
            if ids not in hints:
                hints[ids] = [(pk, text) for tenant_id, pk, text in alerts if ids is None or tenant_id in ids]
            if hints[ids]:
                listener.tell(hints[ids])


_hubs: dict[asyncio.AbstractEventLoop, Hub] = {}


def hub() -> Hub:
    """The hub of the running loop. A process that serves has one."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        for closed in [other for other in _hubs if other.is_closed()]:
            del _hubs[closed]
        _hubs[loop] = Hub()
    return _hubs[loop]
