"""From a commit to the open pages: one message per transaction and tenant on the channel layer."""

import json
import logging
from typing import cast

from channels.layers import BaseChannelLayer, get_channel_layer

from alerts.representation import represent
from alerts.storage import StoredAlerts

logger = logging.getLogger(__name__)

MESSAGE_TYPE = "alerts.stored"
ALL_TENANTS = "alerts.all"


def tenant_group(tenant_id: int) -> str:
    return f"alerts.tenant.{tenant_id}"


async def broadcast(stored: list[StoredAlerts]) -> None:
    """Tell the open sockets. A layer that is down loses nothing: pages ask the database for what they miss."""
    layer = cast("BaseChannelLayer", get_channel_layer())  # settings always have one
    # Encoded once for all sockets, and for both the tenant's group and that of all tenants.
    frames = {alert.pk: frame(represent(alert)) for part in stored if part.tenant_id is None for alert in part.alerts}
    for part in stored:
        group = ALL_TENANTS if part.tenant_id is None else tenant_group(part.tenant_id)
        try:
            await layer.group_send(group, message(part, frames))
        except Exception:  # each layer has exceptions of its own, and none may reach the device
            logger.exception("Alerts %s to %s not broadcast", part.alerts[0].pk, part.alerts[-1].pk)


def message(part: StoredAlerts, frames: dict[int, str]) -> dict[str, object]:
    """What goes over the layer: the id before the alerts, the last of their ids, and their frames."""
    return {
        "type": MESSAGE_TYPE,
        "after": part.after,
        "last": part.alerts[-1].pk,
        "frames": [frames[alert.pk] for alert in part.alerts],
    }


def frame(data: dict[str, object]) -> str:
    return json.dumps({"type": "alert", "data": data}, ensure_ascii=False, separators=(",", ":"))
