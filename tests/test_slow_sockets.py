"""A client that reads slowly gets everything in the end, on either socket."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from channels.db import database_sync_to_async
from channels.testing import WebsocketCommunicator
from django.utils import timezone

from alerts.broadcast import broadcast
from alerts.consumers import SecurityAlertConsumer
from alerts.group_consumer import GroupConsumer
from alerts.logins import with_login
from devices.models import DeviceKey
from ingest.checking import check_batch
from ingest.storing.store import store_batches
from tests.support.events import alert

pytestmark = pytest.mark.django_db(transaction=True)

SOCKETS: dict[Any, Callable[[dict], list[str]]] = {  # the titles in a frame
    SecurityAlertConsumer: lambda frame: [frame["data"]["title"]] if frame["type"] == "alert" else [],
    GroupConsumer: lambda frame: [group["title"] for group in frame["groups"]] if frame["type"] == "groups" else [],
}


class Client:
    """A client of a consumer that takes only as many frames as it is allowed."""

    def __init__(self, consumer: Any, cookie: str, allowed: int) -> None:
        self.titles_of = SOCKETS[consumer]
        self.allowed = asyncio.Semaphore(allowed)
        self.titles: list[str] = []
        application = with_login(consumer.as_asgi())

        async def slowly(scope, receive, send):
            async def wait_and_send(message):
                await self.allowed.acquire()
                await send(message)

            await application(scope, receive, wait_and_send)

        self.socket = WebsocketCommunicator(slowly, "/", headers=[(b"cookie", cookie.encode())])

    def allow(self, frames: int) -> None:
        for _ in range(frames):
            self.allowed.release()

    async def take(self) -> str:
        """Take a frame and return its type."""
        frame = json.loads(await self.socket.receive_from(10))
        self.titles += self.titles_of(frame)
        return frame["type"]

    async def take_until(self, is_enough: Callable[[str], bool]) -> None:
        while not is_enough(await self.take()):
            pass

    async def ping(self) -> None:
        await self.socket.send_to('{"type":"ping"}')
        await self.take_until(lambda kind: kind == "pong")


async def store_and_broadcast(key: DeviceKey, title: str) -> None:
    batch = check_batch(json.dumps([alert(title)]).encode(), key, None, timezone.now())
    await broadcast((await database_sync_to_async(store_batches)([batch])).alerts)


@pytest.mark.parametrize("consumer", SOCKETS)
async def test_what_comes_after_a_lost_frame_does_not_hide_it(consumer, device_key, log_in, monkeypatch):
    monkeypatch.setattr("alerts.live_socket.INBOX_LIMIT", 3)
    cookies = [await database_sync_to_async(log_in)(device_key.device.tenant) for _ in range(2)]
    quick, slow = Client(consumer, cookies[0], 1000), Client(consumer, cookies[1], 3)
    for client in (quick, slow):
        assert (await client.socket.connect())[0]
        await client.ping()
    slow.allowed = asyncio.Semaphore(0)

    async def store(title: str) -> None:
        await store_and_broadcast(device_key, title)
        await quick.take_until(lambda kind: title in quick.titles)  # so the slow one has been given it, too

    for number in range(10):
        await store(f"title {number}")
    slow.allow(2)
    for _ in range(2):
        await slow.take()
    await store("later")  # there is room for it again, but not for those between
    slow.allow(1000)
    await slow.ping()
    assert slow.titles == quick.titles == [*(f"title {number}" for number in range(10)), "later"]
    for client in (quick, slow):
        await client.socket.disconnect()
