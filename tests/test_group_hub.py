"""The hub of groups: a message is only a hint, and what changed is read once for all listeners."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.db import OperationalError
from django.utils import timezone

from alerts.broadcast import CHANGED_TYPE, GROUP, broadcast_changes
from alerts.group_hub import GroupHub, run_query
from alerts.models import AlertGroup
from alerts.order import next_revisions
from tests.support.alert_rows import alert_row
from tests.support.events import numbers

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def layer_of_its_own(settings):
    """Use a separate layer, because the server of another test may still be broadcasting."""
    if settings.REDIS_URL:
        layer = settings.CHANNEL_LAYERS["default"]
        settings.CHANNEL_LAYERS = {"default": layer | {"CONFIG": layer["CONFIG"] | {"prefix": "test-group-hub"}}}


class Recorder:
    """A listener that records the titles of the groups in what is delivered to it."""

    def __init__(self, *tenant_ids: int) -> None:
        self.tenant_ids = frozenset(tenant_ids) if tenant_ids else None
        self.delivered: asyncio.Queue[list[str] | None] = asyncio.Queue()

    def deliver(self, frames) -> None:
        self.revision = frames[-1][0] if frames else None
        texts = frames and [group["title"] for _, text in frames for group in json.loads(text)["groups"]]
        self.delivered.put_nowait(texts)

    async def next(self) -> list[str] | None:
        async with asyncio.timeout(5):
            return await self.delivered.get()


@asynccontextmanager
async def listening(*recorders: Recorder):
    """A running hub with these listeners, once it has subscribed."""
    hub = GroupHub()
    for recorder in recorders:
        hub.add(recorder)
    for recorder in recorders:
        assert await recorder.next() is None  # groups may have changed before it subscribed
    try:
        yield
    finally:
        for recorder in recorders:
            hub.remove(recorder)


@database_sync_to_async
def stored_group(device, title: str) -> AlertGroup:
    now = timezone.now()
    common = {"device": device, "tenant": device.tenant, "timestamp": now, "received_at": now}
    return alert_row(title=title, severity="low", **common).group


@database_sync_to_async
def change(group: AlertGroup) -> None:
    AlertGroup.objects.filter(pk=group.pk).update(revision=next_revisions(1)[0])


async def test_each_listener_gets_the_groups_of_its_tenants(make_key):
    devices = [await database_sync_to_async(lambda: make_key()[0].device)() for _ in range(2)]
    all_of_them, first, none = Recorder(), Recorder(devices[0].tenant_id), Recorder(999_999)
    async with listening(all_of_them, first, none):
        for device, title in zip(devices, ("of the first", "of the second"), strict=True):
            await stored_group(device, title)
        await broadcast_changes()
        assert await all_of_them.next() == ["of the first", "of the second"]
        assert await first.next() == ["of the first"]
        await asyncio.sleep(0.3)
        assert none.delivered.empty()


async def test_hints_without_changes_deliver_nothing(device_key):
    recorder = Recorder()
    async with listening(recorder):
        for _ in range(5):
            await broadcast_changes()
        await asyncio.sleep(0.3)
        assert recorder.delivered.empty()


async def test_a_lost_hint_is_made_up_for_by_the_next(device_key):
    recorder = Recorder()
    async with listening(recorder):
        titles = [f"title {next(numbers)}" for _ in range(3)]
        for title in titles:
            await stored_group(device_key.device, title)
        await broadcast_changes()
        assert await recorder.next() == titles


async def test_a_read_that_fails_is_tried_again(device_key, monkeypatch):
    monkeypatch.setattr("alerts.group_hub.RETRY_SECONDS", 0)
    recorder, failures = Recorder(), []

    async def fail_once(*arguments):
        if not failures:
            failures.append(arguments)
            raise OperationalError
        return await run_query(*arguments)

    async with listening(recorder):
        monkeypatch.setattr("alerts.group_hub.run_query", fail_once)
        await stored_group(device_key.device, "found later")
        await broadcast_changes()
        assert await recorder.next() == ["found later"]
        assert failures


async def test_a_group_that_changes_often_is_delivered_with_its_newest_state(device_key):
    recorder = Recorder()
    group = await stored_group(device_key.device, "busy")
    async with listening(recorder):
        for _ in range(30):
            await change(group)
            await get_channel_layer().group_send(GROUP, {"type": CHANGED_TYPE})
        newest = await database_sync_to_async(AlertGroup.objects.newest_revision)()
        async with asyncio.timeout(5):
            while recorder.revision != newest:
                assert await recorder.delivered.get() == ["busy"]


async def test_a_layer_that_fails_is_logged_and_fails_nobody(settings, monkeypatch, caplog):
    monkeypatch.setattr("alerts.broadcast.get_channel_layer", lambda: None)
    await broadcast_changes()
    assert "A change of groups was not broadcast" in caplog.text
