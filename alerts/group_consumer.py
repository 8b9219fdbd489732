"""The socket `/api/ws/groups`: the groups that changed after a revision, then every change as it is stored."""

from typing import Any, NamedTuple

import msgspec

from alerts.group_hub import PAGE_GROUPS, Change, GroupHub, change_of, frames_of, group_hub
from alerts.live_socket import LiveSocket, number_in
from alerts.models import AlertGroup, SecurityAlert, Severity
from tenants.isolation import acting_as

MAX_MISSED_GROUPS = 2_000  # a client that missed more had better load its list again
MAX_COUNTED_ALERTS = 10_000


class Missed(NamedTuple):
    """What came while a client was away. `alerts` is None if it did not say which alert it has seen last."""

    groups: int
    alerts: int | None
    worst: str | None


class GroupConsumer(LiveSocket):
    """Sends `{"type": "groups", "revision": …, "groups": […]}`; the numbers are revisions.

    After what was missed comes `{"type": "caught_up", "revision", "groups", "alerts", "worst"}`, which counts it:
    alerts are those after `?alert=ID`. Instead of more than MAX_MISSED_GROUPS groups, or if the client has a revision
    that the database does not have, comes `{"type": "reset", "revision"}`.
    """

    def parse(self, query: dict[str, list[str]]) -> None:
        super().parse(query)
        self.last_alert_id = number_in(query, "alert")

    def hub(self) -> GroupHub:
        return group_hub()

    def newest(self, user: Any) -> int:
        return newest_revision(user)

    async def begin(self) -> None:
        missed = await self.user_sockets.run(missed_after, self.user, self.last, self.last_alert_id)
        if self.is_from_future or missed.groups > MAX_MISSED_GROUPS:
            return await self.start_anew(await self.user_sockets.run(newest_revision, self.user))
        await self.catch_up()
        return await self.send_frame(type="caught_up", revision=self.last, **missed._asdict())

    async def catch_up(self) -> None:
        while changes := await self.user_sockets.run(changes_after, self.user, self.last):
            await self.pass_on(frames_of(changes))

    async def start_anew(self, newest: int) -> None:
        await super().start_anew(newest)
        await self.send_frame(type="reset", revision=newest)

    async def send_frame(self, **content: object) -> None:
        await self.send_text(msgspec.json.encode(content).decode())


def newest_revision(user: Any) -> int:
    with acting_as(user):
        groups = AlertGroup.objects.latest_of(user, 1)
        return next(iter(groups.values_list("revision", flat=True)), 0)


def changes_after(user: Any, revision: int) -> list[Change]:
    """The next page of changed groups that `user` may see, in the order of their revisions."""
    with acting_as(user):
        return [change_of(group) for group in AlertGroup.objects.represented().next_of(user, revision, PAGE_GROUPS)]


def missed_after(user: Any, revision: int, last_alert_id: int | None) -> Missed:
    """Count what `user` may see and a client has not."""
    with acting_as(user):
        groups = AlertGroup.objects.next_of(user, revision, MAX_MISSED_GROUPS + 1)
        severities = list(groups.values_list("severity", flat=True))
        alerts = None
        if last_alert_id is not None:
            alerts = len(SecurityAlert.objects.next_of(user, last_alert_id, MAX_COUNTED_ALERTS).values_list("pk"))
    worst = max(severities, key=Severity.values.index, default=None)
    return Missed(len(severities), alerts, worst)
