"""Carries alerts from a commit to the open pages: one channel-layer message per transaction, to every process."""

import asyncio
import logging
from typing import cast

import msgspec
from channels.layers import BaseChannelLayer, get_channel_layer

from alerts.models import SecurityAlert
from alerts.new_alert import NewAlert
from alerts.representation import represent
from common.seldom import SeldomLine

not_broadcast = SeldomLine(logging.getLogger(__name__), logging.ERROR)

GROUP = "alerts"  # its members are the processes with open sockets (`alerts.hub`)
# Channels' convention; nothing dispatches on them, because the hubs read their channels themselves.
EVENT_TYPE = "alerts.stored"
CHANGED_TYPE = "groups.changed"
CHANGED_SECONDS = 2.0  # how long the answer to a person waits for the layer

# Tenant id, alert id, and the text that sockets send. A suppressed alert has none, but its id has its place: a gap
# means that something was missed.
Frame = tuple[int, int, str]


async def broadcast(alerts: list[NewAlert]) -> None:
    """Send all `alerts` of a transaction, in id order, to the open sockets of every process.

    If the layer is down nothing is lost: pages ask the database for the alerts they missed.
    """
    layer = cast("BaseChannelLayer", get_channel_layer())  # settings always have one
    try:
        await layer.group_send(GROUP, {"type": EVENT_TYPE, "frames": [frame_of(alert) for alert in alerts]})
    except Exception as error:  # noqa: BLE001  each layer has its own exceptions, and none may reach the device
        not_broadcast.write("Alerts %s to %s not broadcast: %r", alerts[0].pk, alerts[-1].pk, error)


async def broadcast_changes() -> None:
    """Tell every process that people have changed groups. Which ones is in the database."""
    layer = cast("BaseChannelLayer", get_channel_layer())
    try:
        async with asyncio.timeout(CHANGED_SECONDS):
            await layer.group_send(GROUP, {"type": CHANGED_TYPE})
    except Exception as error:  # noqa: BLE001  each layer has its own exceptions; pages find out by their next ping
        not_broadcast.write("A change of groups was not broadcast: %r", error)


def frame_of(alert: SecurityAlert | NewAlert) -> Frame:
    return alert.tenant_id, alert.pk, "" if alert.is_suppressed else encode(represent(alert))


def encode(data: dict[str, object]) -> str:
    """The frame for one alert: encoded once, for all sockets."""
    return msgspec.json.encode({"type": "alert", "data": data}).decode()
