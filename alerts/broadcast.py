"""From a commit to the open pages: one message per transaction on the channel layer, to every server process."""

import logging
from typing import cast

import msgspec
from channels.layers import BaseChannelLayer, get_channel_layer

from alerts.models import SecurityAlert
from alerts.representation import represent
from alerts.storage import NewAlert

logger = logging.getLogger(__name__)

GROUP = "alerts"  # each process that has open sockets is one member (`alerts.hub`)
MESSAGE_TYPE = "alerts.stored"

Told = tuple[int, int, str]  # of an alert its tenant's id, its own, and its frame


async def broadcast(alerts: list[NewAlert]) -> None:
    """Tell the open sockets of all `alerts` of a transaction, in id order.

    A layer that is down loses nothing: pages ask the database for what they miss.
    """
    layer = cast("BaseChannelLayer", get_channel_layer())  # settings always have one
    try:
        await layer.group_send(GROUP, message(alerts))
    except Exception:  # each layer has exceptions of its own, and none may reach the device
        logger.exception("Alerts %s to %s not broadcast", alerts[0].pk, alerts[-1].pk)


def message(alerts: list[NewAlert]) -> dict[str, object]:
    """What goes over the layer."""
    return {"type": MESSAGE_TYPE, "alerts": [told(alert) for alert in alerts]}


def told(alert: SecurityAlert | NewAlert) -> Told:
    return alert.tenant_id, alert.pk, frame(represent(alert))


def frame(data: dict[str, object]) -> str:
    """An alert as it goes to a socket: encoded once, for all of them."""
    return msgspec.json.encode({"type": "alert", "data": data}).decode()
