"""From a commit to the open pages: one message per transaction on the channel layer, to every server process."""

import logging
from typing import cast

import msgspec
from channels.layers import BaseChannelLayer, get_channel_layer

from alerts.models import SecurityAlert
from alerts.new_alert import NewAlert
from alerts.representation import represent

logger = logging.getLogger(__name__)

GROUP = "alerts"  # each process that has open sockets is one member (`alerts.hub`)
EVENT_TYPE = "alerts.stored"

Frame = tuple[int, int, str]  # of an alert: its tenant's id, its own, and the text that sockets send


async def broadcast(alerts: list[NewAlert]) -> None:
    """Send all `alerts` of a transaction, in id order, to the open sockets of every process.

    A layer that is down loses nothing: pages ask the database for what they miss.
    """
    layer = cast("BaseChannelLayer", get_channel_layer())  # settings always have one
    try:
        await layer.group_send(GROUP, {"type": EVENT_TYPE, "frames": [frame_of(alert) for alert in alerts]})
    except Exception:  # each layer has exceptions of its own, and none may reach the device
        logger.exception("Alerts %s to %s not broadcast", alerts[0].pk, alerts[-1].pk)


def frame_of(alert: SecurityAlert | NewAlert) -> Frame:
    return alert.tenant_id, alert.pk, encode(represent(alert))


def encode(data: dict[str, object]) -> str:
    """An alert as a socket sends it: encoded once, for all of them."""
    return msgspec.json.encode({"type": "alert", "data": data}).decode()
