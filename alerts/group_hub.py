"""Reads the groups that changed, once for all sockets of a process."""

import asyncio
from typing import Any

import msgspec

from alerts.hub import RETRY_SECONDS, BaseHub, Delivery, TenantIds, deliver_by_tenant, not_reading
from alerts.logins import run_query
from alerts.models import AlertGroup
from alerts.representation import represent_group
from common.loops import PerLoop

PAUSE_SECONDS = 0.05  # between two reads: a group that changes more often is sent once, with its newest state
PAGE_GROUPS = 500  # read at once

Change = tuple[int, int, str]  # tenant id, revision, and the group as JSON


class GroupHub(BaseHub):
    """Delivers groups; their numbers are their revisions.

    A message from the layer is only a hint that there is something to read, so it need not say what, and a lost one
    loses nothing: the next hint, or the next ping of a socket, finds the change.
    """

    def __init__(self) -> None:
        super().__init__()
        self._hint = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    def newest(self) -> int:
        return AlertGroup.objects.newest_revision()

    def _take(self, message: dict[str, Any]) -> None:
        self._hint.set()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            await self._hint.wait()
            self._hint.clear()
            try:
                await self._go_on()
            except Exception as error:  # noqa: BLE001  whatever it is, the next attempt may succeed
                not_reading.write("Changed groups can't be read: %r", error)
                self._hint.set()
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _catch_up(self) -> None:
        while changes := await run_query(changes_after, self._last):
            self._last = changes[-1][1]
            deliver_by_tenant(self._listeners, lambda ids, changes=changes: frames_of(changes, ids))  # type: ignore[misc]

    def _forget(self) -> None:
        self._hint.clear()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None


def changes_after(revision: int) -> list[Change]:
    """The next page of changed groups, of all tenants, in the order of their revisions."""
    groups = AlertGroup.objects.visible().represented().filter(revision__gt=revision)
    return [change_of(group) for group in groups.order_by("revision")[:PAGE_GROUPS]]


def change_of(group: AlertGroup) -> Change:
    return group.tenant_id, group.revision, msgspec.json.encode(represent_group(group)).decode()


def frames_of(changes: list[Change], tenant_ids: TenantIds = None) -> Delivery:
    """One frame with the groups of these tenants, or none if there are no such groups."""
    texts = [text for tenant_id, _, text in changes if tenant_ids is None or tenant_id in tenant_ids]
    revision = changes[-1][1]
    return [(revision, f'{{"type":"groups","revision":{revision},"groups":[{",".join(texts)}]}}')] if texts else []


_hubs = PerLoop(lambda loop: GroupHub())


def group_hub() -> GroupHub:
    """The hub of the running loop."""
    return _hubs.of(asyncio.get_running_loop())
