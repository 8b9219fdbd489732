"""Faults under load, round after round: every acknowledged event must be stored, once, and its alert seen.

`python -m tools.torture ROUNDS` starts its own database, channel layer and server processes, has devices send and pages
listen all the time, and in each round kills, stops or cuts something at a random moment. Devices repeat the same bytes
until they are acknowledged; pages reconnect with the last id that they have. The last line is
`rounds=… acknowledged=… lost=… doubled=… missed_alerts=…`; the exit status is 1 if any promise was broken.
"""

import asyncio
import collections
import contextlib
import gzip
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.support import servers
from tests.support.live import free_port
from tests.support.proxy import StallingProxy

DEVICES, PAGES = 8, 3
ANSWER_SECONDS = 15.0  # how long a device waits for an answer: a later one is a fault
CATCH_UP_SECONDS = 30.0  # how long a page may take to get what it missed, once all servers are up


@dataclass
class Log:
    """What devices and pages saw."""

    acknowledged: set[int] = field(default_factory=set)
    alerts: set[str] = field(default_factory=set)  # acknowledged ones, by title
    seen: list[set[str]] = field(default_factory=list)  # by page
    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    closed: collections.Counter[int] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)


class Process:
    """A server that can be killed and restarts on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        command, environment = [sys.executable, "-m", "ingestcloud.server"], os.environ | {"PORT": str(self.port)}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)

    async def is_up(self) -> None:
        async with httpx.AsyncClient() as client:
            while True:
                try:
                    await client.get(f"http://127.0.0.1:{self.port}/healthz", timeout=1)
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                else:
                    return

    async def end(self, how: signal.Signals) -> None:
        """End it with a signal, and start it again."""
        self.process.send_signal(how)
        await asyncio.to_thread(self.process.wait)
        self.start()


class Site:
    """The server processes, and the servers that they use."""

    def __init__(self) -> None:
        if servers.STACK == "servers":
            self.database, self.redis = servers.PostgreSQL(), servers.start_redis_server()
            os.environ |= {"DATABASE_URL": self.database.url, "REDIS_URL": self.redis.connection_url}
            self.proxy = StallingProxy(self.database.connect)
        servers.complete_environment()
        os.environ["LOG_LEVEL"] = "CRITICAL"
        (*self.keys, self.bad_key), self.cookies = make_devices_and_analysts()
        # SQLite and the in-memory layer belong to one process.
        if servers.STACK == "servers":
            os.environ["DATABASE_URL"] = self.database.url_through(self.proxy.port)
        self.processes = [Process() for _ in range(2 if servers.STACK == "servers" else 1)]

    @property
    def faults(self) -> dict[Callable[[], Awaitable[None]], int]:
        """The faults that a round may bring, with their weights."""
        if servers.STACK != "servers":
            return {self.kill: 8, self.stop: 2, self.flood: 2}
        return {
            self.kill: 12, self.kill_all: 2, self.stop: 2, self.stop_database: 2, self.crash_database: 2,
            self.stop_redis: 2, self.cut_connections: 2, self.stall_connections: 2, self.set_sequences_back: 2,
            self.flood: 2,
        }  # fmt: skip

    async def kill(self) -> None:
        await random.choice(self.processes).end(signal.SIGKILL)

    async def kill_all(self) -> None:
        await asyncio.gather(*(process.end(signal.SIGKILL) for process in self.processes))

    async def stop(self) -> None:
        await random.choice(self.processes).end(signal.SIGTERM)

    async def stop_database(self) -> None:
        await self._restart_database("fast")

    async def crash_database(self) -> None:
        await self._restart_database("immediate")

    async def _restart_database(self, how: str) -> None:
        await asyncio.to_thread(self.database.stop, how)
        await asyncio.sleep(random.uniform(0, 4))
        await asyncio.to_thread(self.database.start)

    async def stop_redis(self) -> None:
        port = self.redis.port
        await asyncio.to_thread(self.redis.stop)
        await asyncio.sleep(random.uniform(0, 4))
        self.redis = await asyncio.to_thread(servers.start_redis_server, port)

    async def cut_connections(self) -> None:
        import psycopg

        async with await psycopg.AsyncConnection.connect(self.database.url, autocommit=True) as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND backend_type = 'client backend'"
            )

    async def stall_connections(self) -> None:
        """Open connections go dead, as behind a load balancer that has lost them; new ones work."""
        self.proxy.stall()
        await asyncio.sleep(random.uniform(0, 12))
        self.proxy.release()

    async def set_sequences_back(self) -> None:
        """As after a switch-over to a replica that has the rows but not the sequences."""
        import psycopg

        async with await psycopg.AsyncConnection.connect(self.database.url, autocommit=True) as connection:
            for table in ("ingest_batches", "ingest_events", "security_alerts"):
                last = f"(SELECT last_value FROM {table}_id_seq)"
                back = f"greatest(1, {last} - {random.randint(1, 200)})"
                await connection.execute(f"SELECT setval('{table}_id_seq', {back})")

    async def flood(self) -> None:
        """One device sends bodies that take long to read, to refuse, or to answer."""
        headers = {"X-Device-Key": self.bad_key, "Content-Type": "application/json", "Content-Encoding": "gzip"}
        bodies = (
            gzip.compress(b"") * 100_000,
            gzip.compress(b"[" + b"{}," * 999 + b"{}]"),
            gzip.compress(b"[" * 10**6),
        )
        urls = [f"http://127.0.0.1:{process.port}/v1/ingest" for process in self.processes]
        async with httpx.AsyncClient(headers=headers, timeout=ANSWER_SECONDS) as client, asyncio.TaskGroup() as floods:
            for number in range(24):
                floods.create_task(send_and_forget(client, urls[number % len(urls)], bodies[number % len(bodies)]))

    def end(self) -> None:
        for process in self.processes:
            process.process.kill()
            process.process.wait()


async def send_and_forget(client: httpx.AsyncClient, url: str, body: bytes) -> None:
    with contextlib.suppress(httpx.TransportError):
        await client.post(url, content=body)


def make_devices_and_analysts() -> tuple[list[str], list[str]]:
    """Migrate the database. Returns the keys of devices of two tenants, and the cookies of analysts who see both."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "ingestcloud.settings"
    import django

    django.setup()
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.db import connection
    from django.test import Client

    from devices.models import Device, DeviceKey
    from tenants.models import Tenant

    call_command("migrate", verbosity=0)
    tenants = [Tenant.objects.create(slug=slug, name=slug) for slug in ("acme", "globex")]
    keys = []
    for number in range(DEVICES + 1):  # one more, which floods
        device = Device.objects.create(tenant=tenants[number % 2], name=f"press-{number}")
        keys.append(DeviceKey.objects.issue(device)[1])
    cookies = []
    for number in range(PAGES):
        user = get_user_model().objects.create_user(f"analyst-{number}")
        user.tenants.set(tenants)
        client = Client()
        client.force_login(user)
        cookies.append(f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}")
    connection.close()
    return keys, cookies


numbers = itertools.count()


def make_batch() -> tuple[bytes, set[int], set[str]]:
    """A body, the numbers of its events, and the titles of its alerts."""
    chosen = [next(numbers) for _ in range(random.choice((1, 1, 3, 40)))]
    titles = {f"alert {number}" for number in chosen if random.random() < 0.2}
    batch: list[dict[str, Any]] = []
    for number in chosen:
        event: dict[str, Any] = {"kind": "log", "data": {"level": "info", "message": "…"}}
        if f"alert {number}" in titles:
            event = {"kind": "security_alert", "data": {"title": f"alert {number}", "severity": "high"}}
        event["data"]["number"] = number
        batch.append(event | {"timestamp": "2026-06-06T10:00:00Z"})
    return json.dumps(batch).encode(), set(chosen), titles


async def device(site: Site, key: str, log: Log, done: asyncio.Event) -> None:
    """Sends batch after batch, each until it is acknowledged."""
    headers = {"X-Device-Key": key, "Content-Type": "application/json"}
    async with httpx.AsyncClient(headers=headers, timeout=ANSWER_SECONDS) as client:
        while not done.is_set():
            body, chosen, titles = make_batch()
            while not await is_acknowledged(client, random.choice(site.processes).port, body, log):
                pass
            log.acknowledged |= chosen
            log.alerts |= titles


async def is_acknowledged(client: httpx.AsyncClient, port: int, body: bytes, log: Log) -> bool:
    """Post `body` once. If it is not acknowledged, wait a moment."""
    status = await status_of(client, port, body, log)
    if status != 204:
        await asyncio.sleep(random.uniform(0, 0.2))
    return status == 204


async def status_of(client: httpx.AsyncClient, port: int, body: bytes, log: Log) -> int | None:
    try:
        answer = await client.post(f"http://127.0.0.1:{port}/v1/ingest", content=body)
    except httpx.TimeoutException:
        log.faults.append(f"no answer in {ANSWER_SECONDS:.0f} seconds")
        return None
    except httpx.TransportError:
        log.answers["none"] += 1
        return None
    log.answers[str(answer.status_code)] += 1
    if answer.status_code not in (204, 503):
        log.faults.append(f"answered {answer.status_code}: {answer.text}")
    elif answer.status_code == 503 and not int(answer.headers.get("Retry-After", "0")):
        log.faults.append("a 503 that does not say when to retry")
    return answer.status_code


async def page(site: Site, cookie: str, log: Log, seen: set[str]) -> None:
    """Listens indefinitely, like the live page: reconnects with the last id that it has, and pings."""
    last = 0
    while True:
        port = random.choice(site.processes).port
        url = f"ws://127.0.0.1:{port}/api/ws/security?since={last}"
        try:
            async with connect(
                url, origin=f"http://127.0.0.1:{port}", additional_headers={"Cookie": cookie}, proxy=None
            ) as socket:
                pinging = asyncio.create_task(ping(socket))
                try:
                    async for frame in socket:
                        content = json.loads(frame)
                        if content["type"] == "alert":
                            if content["data"]["id"] <= last:
                                log.faults.append(f"alert {content['data']['id']} came after {last}")
                            last = content["data"]["id"]
                            seen.add(content["data"]["title"])
                finally:
                    pinging.cancel()
                    log.closed[int(socket.close_code or 0)] += 1
        except (OSError, ConnectionClosed, InvalidHandshake, InvalidMessage):
            pass
        await asyncio.sleep(random.uniform(0, 0.5))


async def ping(socket: ClientConnection) -> None:
    while True:
        await asyncio.sleep(2)
        await socket.send('{"type":"ping"}')


async def torture(site: Site, rounds: int, log: Log) -> None:
    done = asyncio.Event()
    log.seen = [set() for _ in site.cookies]
    pages = [
        asyncio.create_task(page(site, cookie, log, seen)) for cookie, seen in zip(site.cookies, log.seen, strict=True)
    ]
    await asyncio.gather(*(process.is_up() for process in site.processes))
    async with asyncio.TaskGroup() as devices:
        for key in site.keys:
            devices.create_task(device(site, key, log, done))
        for number in range(1, rounds + 1):
            await asyncio.sleep(random.uniform(0.1, 1.5))
            (fault,) = random.choices(list(site.faults), list(site.faults.values()))
            await fault()
            print(f"{number:4} {fault.__name__:16} {len(log.acknowledged):8} acknowledged", flush=True)
            await asyncio.gather(*(process.is_up() for process in site.processes))
        done.set()
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while any(log.alerts - seen for seen in log.seen) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    for task in pages:
        task.cancel()
    await asyncio.gather(*pages, return_exceptions=True)


def stored_numbers() -> collections.Counter[int]:
    from ingest.models import IngestEvent

    return collections.Counter(IngestEvent.objects.values_list("data__number", flat=True))


def main(rounds: int) -> int:
    log, site = Log(), Site()
    try:
        asyncio.run(torture(site, rounds, log))
        stored = stored_numbers()
    finally:
        site.end()
    lost = log.acknowledged - set(stored)
    doubled = [number for number, times in stored.items() if times > 1]
    missed = [titles for seen in log.seen if (titles := log.alerts - seen)]
    print(f"answers: {dict(log.answers)}, sockets closed with: {dict(log.closed)}")
    print(f"faults: {log.faults or 'none'}, stored and never acknowledged: {len(set(stored) - log.acknowledged)}")
    print(
        f"rounds={rounds} acknowledged={len(log.acknowledged)} lost={len(lost)} doubled={len(doubled)}"
        f" missed_alerts={len(set().union(*missed))}"
    )
    return int(bool(lost or doubled or missed or log.faults or set(stored) != log.acknowledged))


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1])))
