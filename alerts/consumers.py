"""The socket `/api/ws/security`: the alerts that were missed, in order, then every new one as it is stored."""

from typing import Any, cast

from alerts.broadcast import encode
from alerts.hub import Hub, hub
from alerts.live_socket import LiveSocket
from alerts.models import SecurityAlert
from alerts.representation import represent
from tenants.isolation import acting_as

PAGE_ALERTS = 500  # read at once


class SecurityAlertConsumer(LiveSocket):
    """Sends `{"type": "alert", "data": …}` for the alerts of the user's tenants; the numbers are their ids.

    With an id from the future it sends those stored from now on.
    """

    def hub(self) -> Hub:
        return hub()

    def newest(self, user: Any) -> int:
        return newest_id(user)

    async def catch_up(self) -> None:
        while alerts := await self.user_sockets.run(alerts_after, self.user, self.last):
            for data in alerts:
                await self.send_text(encode(data))
            self.last = cast("int", alerts[-1]["id"])


def newest_id(user: Any) -> int:
    with acting_as(user):
        return next(iter(SecurityAlert.objects.newest_of(user, 1).values_list("pk", flat=True)), 0)


def alerts_after(user: Any, last_id: int) -> list[dict[str, Any]]:
    """The next page of alerts that `user` may see, oldest first."""
    alerts = SecurityAlert.objects.select_related("tenant", "device", "group")
    with acting_as(user):
        return [represent(alert) for alert in alerts.next_of(user, last_id, PAGE_ALERTS)]
