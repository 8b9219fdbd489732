"""One listener on the channel layer for all sockets of a process: a message is read once, not once per socket."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Protocol, cast

from channels.layers import BaseChannelLayer, get_channel_layer

from alerts.broadcast import EVENT_TYPE, GROUP, Frame, frame_of
from alerts.logins import run_query
from alerts.models import SecurityAlert
from common.loops import PerLoop
from common.seldom import SeldomLine

not_receiving = SeldomLine(logging.getLogger(__name__), logging.ERROR)
not_reading = SeldomLine(logging.getLogger(__name__), logging.ERROR)

RETRY_SECONDS = 1.0  # between attempts to subscribe, while the layer or the database does not respond
OVERTAKEN_SECONDS = 0.1  # how long a message waits for the one before it
PAGE_ALERTS = 500  # read at once
UNKNOWN = -1

# Numbers and frames, in the order of the numbers: what one listener may have. What is not sent has an empty frame.
Delivery = list[tuple[int, str]]
TenantIds = frozenset[int] | None  # None: all


class Listener(Protocol):
    """Receives what belongs to `tenant_ids`."""

    tenant_ids: TenantIds

    def deliver(self, frames: Delivery | None) -> None:
        """Accept frames without waiting. None means that there may be something for which no frame came."""


class BaseHub:
    """Listens on the channel layer while it has listeners, and delivers to each what belongs to its tenants.

    What it delivers has numbers from one sequence, in commit order, so "all after number N" has no gaps.
    """

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._last = UNKNOWN  # the newest number that was delivered, or up to which listeners were told to catch up

    def add(self, listener: Listener) -> None:
        self._listeners.add(listener)
        if self._task is None:
            self._task = asyncio.create_task(self._listen())

    def remove(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners and self._task is not None:
            self._task.cancel()
            self._task = None
            self._last = UNKNOWN

    def start_anew(self, newest: int) -> None:
        """Deliver what comes after `newest`, although it has numbers that were delivered before."""
        self._last = min(self._last, newest)

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
            await self._go_on()
            while True:
                self._take(await layer.receive(channel))
        finally:
            self._forget()
            with contextlib.suppress(Exception):
                await layer.group_discard(GROUP, channel)

    async def _go_on(self) -> None:
        """Deliver what was stored meanwhile, or tell the listeners to catch up."""
        newest = await run_query(self.newest)
        if self._last == UNKNOWN or newest < self._last:  # the first time, or the database was restored
            self._last = newest
            for listener in self._listeners:
                listener.deliver(None)
        else:
            await self._catch_up()

    def newest(self) -> int:
        """The highest number in the database, of all tenants."""
        raise NotImplementedError

    def _take(self, message: dict[str, Any]) -> None:
        """Accept a message from the layer."""
        raise NotImplementedError

    async def _catch_up(self) -> None:
        """Deliver everything after the last number delivered, from the database."""
        raise NotImplementedError

    def _forget(self) -> None:
        """End what is in progress: the connection to the layer was lost, or there is no listener left."""
        raise NotImplementedError


class Hub(BaseHub):
    """Delivers alerts; their numbers are their ids.

    A message has all alerts of a transaction. So the first id of a message follows the last id of the previous one, or
    alerts were missed. Missed alerts are read from the database once, for all listeners.
    """

    def __init__(self) -> None:
        super().__init__()
        self._early: dict[int, list[Frame]] = {}  # messages waiting for their predecessor, by first id
        self._waiting: asyncio.Task[None] | None = None

    def newest(self) -> int:
        return SecurityAlert.objects.newest_id()

    def _take(self, message: dict[str, Any]) -> None:
        """Deliver messages in order. If one was overtaken by a later one, wait a moment for it."""
        if message["type"] != EVENT_TYPE:
            return
        alerts: list[Frame] = message["frames"]
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
            self._forget()

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

    def _forget(self) -> None:
        self._early.clear()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _deliver(self, alerts: list[Frame]) -> None:
        deliver_by_tenant(
            self._listeners,
            lambda ids: [(pk, text) for tenant_id, pk, text in alerts if ids is None or tenant_id in ids],
        )


def deliver_by_tenant(listeners: set[Listener], delivery_of: Callable[[TenantIds], Delivery]) -> None:
    """Deliver to each listener what `delivery_of` makes for its tenants: once for all that have the same."""
    deliveries: dict[TenantIds, Delivery] = {}  # most listeners share their tenants with another
    for listener in listeners:
        ids = listener.tenant_ids
        if ids not in deliveries:
            deliveries[ids] = delivery_of(ids)
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
