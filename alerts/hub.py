"""One listener on the channel layer for all sockets of a process: a message is read once, not once per socket."""

import asyncio
import contextlib
import logging
from typing import Protocol, cast

from channels.layers import BaseChannelLayer, get_channel_layer

from alerts.broadcast import GROUP, Frame, frame_of
from alerts.logins import run_query
from alerts.models import SecurityAlert
from common.loops import PerLoop
from common.seldom import SeldomLine

not_receiving = SeldomLine(logging.getLogger(__name__), logging.ERROR)
not_reading = SeldomLine(logging.getLogger(__name__), logging.ERROR)

RETRY_SECONDS = 1.0  # between attempts to subscribe, while the layer or the database does not respond
OVERTAKEN_SECONDS = 0.1  # how long a message waits for the one before it
PAGE_ALERTS = 500  # read at once
UNKNOWN_ID = -1

Delivery = list[tuple[int, str]]  # alert ids and texts, in id order: of frames, what one listener may have


class Listener(Protocol):
    """Receives the alerts of `tenant_ids`, or of all tenants if that is None."""

    tenant_ids: frozenset[int] | None

    def deliver(self, frames: Delivery | None) -> None:
        """Accept frames without waiting. None means that there may be alerts for which no frame came."""


class Hub:
    """Listens while it has listeners, and delivers to each the alerts of its tenants.

    Ids come from one sequence, in commit order, and a message has all alerts of a transaction. So the first id of a
    message follows the last id of the previous one, or alerts were missed. Missed alerts are read from the database
    once, for all listeners.
    """

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._last = UNKNOWN_ID  # the newest id that was delivered, or up to which listeners were told to catch up
        self._early: dict[int, list[Frame]] = {}  # messages waiting for their predecessor, by first id
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
            except Exception as error:  # noqa: BLE001  each layer has its own exceptions
                not_receiving.write("Not receiving new alerts; open pages ask the database in the meantime: %r", error)
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
        """Catch up with the alerts that were stored before we subscribed."""
        newest = await run_query(SecurityAlert.objects.newest_id)
        if self._last == UNKNOWN_ID or newest < self._last:  # the first time, or the database was restored
            self._last = newest
            for listener in self._listeners:
                listener.deliver(None)
        else:
            await self._catch_up()

    def _take(self, alerts: list[Frame]) -> None:
        """Deliver messages in order. If one was overtaken by a later one, wait a moment for it."""
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
        """Wait for a message that was overtaken. If it does not come, it was lost, or its transaction was rolled back.

        Messages that are still early after a catch-up have rows that can't be read, because their device was deleted:
        they are delivered as they came.
        """
        await asyncio.sleep(OVERTAKEN_SECONDS)
        while self._early:
            try:
                await self._catch_up()
            except Exception as error:  # noqa: BLE001  whatever it is, the next attempt may succeed
                not_reading.write("Missed alerts can't be read: %r", error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._last = max(self._last, min(self._early, default=0) - 1)
                self._deliver_early()

    async def _catch_up(self) -> None:
        """Deliver every alert after the last one delivered, from the database."""
        while alerts := await run_query(alerts_after, self._last):
            self._deliver([alert for alert in alerts if alert[1] > self._last])  # some may have come in the meantime
            self._last = max(self._last, alerts[-1][1])

    def _forget_early(self) -> None:
        self._early.clear()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _deliver(self, alerts: list[Frame]) -> None:
        deliveries: dict[frozenset[int] | None, Delivery] = {}  # most listeners share their tenants with another
        for listener in self._listeners:
            ids = listener.tenant_ids
            if ids not in deliveries:
                deliveries[ids] = [(pk, text) for tenant_id, pk, text in alerts if ids is None or tenant_id in ids]
            if deliveries[ids]:
                listener.deliver(deliveries[ids])


def alerts_after(last_id: int) -> list[Frame]:
    """The next page of alerts, of all tenants, oldest first."""
    rows = SecurityAlert.objects.filter(id__gt=last_id).select_related("tenant", "device", "group")
    return [frame_of(alert) for alert in rows.order_by("id")[:PAGE_ALERTS]]


_hubs = PerLoop(lambda loop: Hub())


def hub() -> Hub:
    """The hub of the running loop."""
    return _hubs.of(asyncio.get_running_loop())
