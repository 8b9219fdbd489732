"""One listener on the channel layer for all sockets of a process: a message is read once, not once a socket."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from channels.layers import BaseChannelLayer, get_channel_layer

from alerts.broadcast import GROUP

logger = logging.getLogger(__name__)

TRY_AGAIN = 1.0  # seconds until the next try to subscribe, while the layer does not answer


@dataclass(slots=True)
class Hint:
    """Alerts that were stored: the id before them, the last of their ids, and their frames."""

    after: int
    last: int = 0
    frames: list[str] = field(default_factory=list)


class Listener(Protocol):
    """Whoever wants to hear of alerts: of all where `tenant_ids` is None."""

    tenant_ids: frozenset[int] | None

    def tell(self, hint: Hint | None) -> None:
        """Take a hint without waiting. None: there may be alerts that no hint tells of."""


class Hub:
    """Listens while it has listeners, and tells each what is its own."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None

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
                logger.error("The channel layer does not answer; open pages ask the database meanwhile: %r", error)
                await asyncio.sleep(TRY_AGAIN)

    async def _pass_on(self, layer: BaseChannelLayer) -> None:
        channel = await layer.new_channel()
        try:
            await layer.group_add(GROUP, channel)
            for listener in self._listeners:  # something may have been stored before we could hear of it
                listener.tell(None)
            while True:
                self._tell(await layer.receive(channel))
        finally:
            with contextlib.suppress(Exception):
                await layer.group_discard(GROUP, channel)

    def _tell(self, message: dict[str, Any]) -> None:
        everything = Hint(message["after"])
        of_tenants = {tenant_id: Hint(after) for tenant_id, after in message["after_of_tenants"]}
        for tenant_id, pk, text in message["alerts"]:
            for hint in (everything, of_tenants[tenant_id]):
                hint.frames.append(text)
                hint.last = pk
        for listener in self._listeners:
            if listener.tenant_ids is None:
                listener.tell(everything)
            elif len(listener.tenant_ids) > 1:
                # The order over its tenants is not that of the ids in one of them.
                if not listener.tenant_ids.isdisjoint(of_tenants):
                    listener.tell(None)
            else:
                (tenant_id,) = listener.tenant_ids
                if tenant_id in of_tenants:
                    listener.tell(of_tenants[tenant_id])


_hubs: dict[asyncio.AbstractEventLoop, Hub] = {}


def hub() -> Hub:
    """The hub of the running loop. A process that serves has one."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        for closed in [other for other in _hubs if other.is_closed()]:
            del _hubs[closed]
        _hubs[loop] = Hub()
    return _hubs[loop]
