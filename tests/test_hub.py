"""The hub between channel layer and sockets: it delivers alerts in order, and says when some may be missing."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.db import OperationalError
from django.utils import timezone

from alerts.broadcast import EVENT_TYPE, GROUP
from alerts.hub import Hub, run_query
from alerts.models import SecurityAlert
from devices.models import DeviceKey
from tests.support.alert_rows import alert_row
from tests.support.events import numbers

pytestmark = pytest.mark.django_db(transaction=True)

ONE, OTHER = 100_001, 100_002  # ids of tenants that no test creates


@pytest.fixture(autouse=True)
def layer_of_its_own(settings):
    """Use a separate layer, because the server of another test may still be broadcasting alerts."""
    if settings.REDIS_URL:
        layer = settings.CHANNEL_LAYERS["default"]
        settings.CHANNEL_LAYERS = {"default": layer | {"CONFIG": layer["CONFIG"] | {"prefix": "test-hub"}}}


class Recorder:
    """A listener that records what is delivered to it."""

    def __init__(self, *tenant_ids: int) -> None:
        self.tenant_ids = frozenset(tenant_ids) if tenant_ids else None
        self.delivered: asyncio.Queue[list[int] | None] = asyncio.Queue()

    def deliver(self, frames) -> None:
        self.delivered.put_nowait(frames and [pk for pk, _ in frames])


@asynccontextmanager
async def listening(*recorders: Recorder):
    """A running hub with these listeners, once it has subscribed."""
    hub = Hub()
    for recorder in recorders:
        hub.add(recorder)
    for recorder in recorders:
        assert await recorder.delivered.get() is None  # alerts may have been stored before it subscribed
    try:
        yield
    finally:
        for recorder in recorders:
            hub.remove(recorder)


async def send(*ids: int, tenant_id: int = ONE) -> None:
    frames = [(tenant_id, pk, f"alert {pk}") for pk in ids]
    await get_channel_layer().group_send(GROUP, {"type": EVENT_TYPE, "frames": frames})


@database_sync_to_async
def stored_alert(key: DeviceKey, **fields) -> SecurityAlert:
    now = timezone.now()
    common = {"device": key.device, "tenant": key.device.tenant, "timestamp": now, "received_at": now}
    return alert_row(title=f"alert {next(numbers)}", severity="low", **common, **fields)


async def until(recorder: Recorder, expected: list[list[int] | None]) -> None:
    async with asyncio.timeout(5):
        assert [await recorder.delivered.get() for _ in expected] == expected
    await asyncio.sleep(0.3)
    assert recorder.delivered.empty()


async def test_each_listener_gets_the_alerts_of_its_tenants():
    all_of_them, one, both = Recorder(), Recorder(ONE), Recorder(ONE, OTHER)
    async with listening(all_of_them, one, both):
        await send(1, 2)
        await send(3, tenant_id=OTHER)
        await until(all_of_them, [[1, 2], [3]])
        await until(both, [[1, 2], [3]])
        await until(one, [[1, 2]])


async def test_the_hub_waits_for_a_message_that_was_overtaken():
    recorder = Recorder()
    async with listening(recorder):
        await send(4, 5)
        await send(3)
        await send(1, 2)
        await until(recorder, [[1, 2], [3], [4, 5]])


async def test_the_alerts_of_a_lost_message_are_read_once_for_all_listeners(device_key):
    first = (await stored_alert(device_key)).pk
    tenant_id = device_key.device.tenant_id
    own, others = Recorder(tenant_id), [Recorder(), Recorder(tenant_id, OTHER)]
    async with listening(own, *others):
        for _ in range(3):
            await stored_alert(device_key)
        await send(first + 1, tenant_id=tenant_id)
        await send(first + 3, tenant_id=tenant_id)
        for recorder in (own, *others):
            await until(recorder, [[first + 1], [first + 2, first + 3]])
        await send(first + 4, tenant_id=OTHER)
        await until(others[0], [[first + 4]])
        assert own.delivered.empty()


async def test_alerts_that_cannot_be_read_at_first_are_read_later(device_key, monkeypatch):
    """As happens while the database is down."""
    faults = iter([OperationalError("a fault")])

    async def fail_once(*arguments: object) -> object:
        for fault in faults:
            raise fault
        return await run_query(*arguments)

    monkeypatch.setattr("alerts.hub.RETRY_SECONDS", 0)
    recorder = Recorder()
    async with listening(recorder):
        monkeypatch.setattr("alerts.hub.run_query", fail_once)
        first, second = (await stored_alert(device_key)).pk, (await stored_alert(device_key)).pk
        await send(second)
        await until(recorder, [[first, second]])
    assert not list(faults)


async def test_ids_that_were_never_used_are_skipped(device_key):
    first = (await stored_alert(device_key)).pk
    recorder = Recorder()
    async with listening(recorder):
        second = (await stored_alert(device_key, pk=first + 7)).pk
        await send(second)
        await until(recorder, [[second]])


async def test_a_message_without_a_row_is_delivered_in_order():
    recorder = Recorder()
    async with listening(recorder):
        await send(9)
        await send(5)
        await until(recorder, [[5], [9]])


async def test_a_repeated_message_is_not_delivered_again():
    recorder = Recorder()
    async with listening(recorder):
        await send(1, 2)
        await send(1, 2)
        await send(3)
        await until(recorder, [[1, 2], [3]])


async def test_the_hub_continues_from_the_newest_stored_alert(device_key):
    newest = (await stored_alert(device_key)).pk
    recorder = Recorder()
    async with listening(recorder):
        await send(newest)
        await send(newest + 1)
        await until(recorder, [[newest + 1]])
