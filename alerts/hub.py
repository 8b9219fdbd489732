"""One listener on the channel layer for all sockets of a process: a message is read once, not once a socket."""

import asyncio
import contextlib
import logging
from typing import Protocol, cast

from channels.layers import BaseChannelLayer, get_channel_layer

from alerts.broadcast import GROUP, Frame, frame_of
from alerts.logins import run_query
from alerts.models import SecurityAlert
from common.loops import PerLoop

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0  # between tries to subscribe, while the layer or the database does not answer
OVERTAKEN_SECONDS = 0.1  # that frames wait for those before them
PAGE_ALERTS = 500  # that are read at once
UNKNOWN_ID = -1

Frames = list[tuple[int, str]]  # of alerts, in id order: their ids and texts


class Listener(Protocol):
    """Whoever wants to hear of alerts: of all where `tenant_ids` is None."""

    tenant_ids: frozenset[int] | None

    def deliver(self, frames: Frames | None) -> None:
        """Take frames without waiting. None: there may be alerts of which no frame came."""


class Hub:
    """Listens while it has listeners, and tells each what is its own.

    Ids come from one sequence, in the order of commits, and a message has all of a transaction: so the first id of
    a message follows the last id of the one before, or something was missed. That is read from the database once,
    for all listeners.
    """

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._last = UNKNOWN_ID  # the newest id that was delivered, or about which the listeners were told to ask
        self._early: dict[int, list[Frame]] = {}  # messages whose predecessor is awaited, by first id
        self._waiting: asyncio.Task[None] | None = None

    def add(self, listener: Listener) -> None:
        self._listeners.add(listener)
        if self._task is None:
            self._task = asyncio.create_task(self._listen())

    def remove(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners and self._task is not None:
            self._task.cancel()
            self._task = None
            self._last = UNKNOWN_ID

    async def _listen(self) -> None:
        layer = cast("BaseChannelLayer", get_channel_layer())  # settings always have one
        while True:
            try:
                await self._pass_on(layer)
            except Exception as error:  # noqa: BLE001  each layer has exceptions of its own
                logger.error("No word of new alerts; open pages ask the database meanwhile: %r", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _pass_on(self, layer: BaseChannelLayer) -> None:
        channel = await layer.new_channel()
        try:
            await layer.group_add(GROUP, channel)
            await self._begin()
            while True:
                self._take((await layer.receive(channel))["frames"])
        finally:
            self._forget_early()
            with contextlib.suppress(Exception):
                await layer.group_discard(GROUP, channel)

    async def _begin(self) -> None:
        """Something may have been stored before we could hear of it."""
        newest = await run_query(SecurityAlert.objects.newest_id)
        if self._last == UNKNOWN_ID or newest < self._last:  # the first time, or the database was set back
            self._last = newest
            for listener in self._listeners:
                listener.deliver(None)
        else:
            await self._catch_up()

    def _take(self, alerts: list[Frame]) -> None:
        """Pass on a message in its turn: one that was overtaken is awaited for a moment."""
        self._early[alerts[0][1]] = alerts
        self._deliver_early()
        if self._early and self._waiting is None:
            self._waiting = asyncio.create_task(self._wait())

    def _deliver_early(self) -> None:
        while following := self._early.pop(self._last + 1, None):
            self._deliver(following)
            self._last = following[-1][1]
        self._early = {first: alerts for first, alerts in self._early.items() if first > self._last}
        if not self._early:
            self._forget_early()

    async def _wait(self) -> None:
        """For a message that others have overtaken. If it does not come, it is lost, or its transaction was.

        What is still early then has rows that can't be read, for their device is gone: it is delivered as it came.
        """
        await asyncio.sleep(OVERTAKEN_SECONDS)
        while self._early:
            try:
                await self._catch_up()
            except Exception as error:  # noqa: BLE001  whatever it is, the next try may find it gone
                logger.error("Alerts that were missed can't be read: %r", error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._last = max(self._last, min(self._early, default=0) - 1)
                self._deliver_early()

    async def _catch_up(self) -> None:
        """Deliver what the database has after the last alert that was delivered."""
        while alerts := await run_query(alerts_after, self._last):
            self._deliver([alert for alert in alerts if alert[1] > self._last])  # some may have come meanwhile
            self._last = max(self._last, alerts[-1][1])

    def _forget_early(self) -> None:
        self._early.clear()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _deliver(self, alerts: list[Frame]) -> None:
        frames: dict[frozenset[int] | None, Frames] = {}  # most listeners have the tenants of another
        for listener in self._listeners:
            ids = listener.tenant_ids
            if ids not in frames:
                frames[ids] = [(pk, text) for tenant_id, pk, text in alerts if ids is None or tenant_id in ids]
            if frames[ids]:
                listener.deliver(frames[ids])


def alerts_after(last_id: int) -> list[Frame]:
    """The next page of alerts, of all tenants, oldest first."""
    rows = SecurityAlert.objects.filter(id__gt=last_id).select_related("tenant", "device").order_by("id")[:PAGE_ALERTS]
    return [frame_of(alert) for alert in rows]


_hubs = PerLoop(lambda loop: Hub())


def hub() -> Hub:
    """The hub of the running loop."""
    return _hubs.of(asyncio.get_running_loop())
