"""Faults under load, round after round: every acknowledged event must be stored, once, and its alert seen.

`python -m tools.torture ROUNDS` starts its own database, channel layer and server processes, has devices send, and
pages and consoles listen all the time, and in each round kills, stops or cuts something at a random moment. Devices
repeat the same bytes until they are acknowledged; pages reconnect with the last id that they have, consoles with the
last revision. In the end each console must know the newest state of each group, and what the worker derived must equal
a recount of the stored events. The last line is `rounds=… acknowledged=… lost=… doubled=… missed_alerts=…
missed_groups=…`; the exit status is 1 if any promise was broken.
"""

import asyncio
import collections
import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.support import servers
from tests.support.live import free_port
from tests.support.proxy import StallingProxy
from tools.torture_clients import ANSWER_SECONDS, Console, Log, State, console, device, page, send_and_forget

DEVICES, PAGES = 8, 3
CATCH_UP_SECONDS = 30.0  # how long a page may take to get what it missed, once all servers are up


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
        os.environ |= {"LOG_LEVEL": "CRITICAL", "WORKER": "true"}
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


async def torture(site: Site, rounds: int, log: Log) -> None:
    done = asyncio.Event()
    log.seen, log.consoles = [set() for _ in site.cookies], [Console() for _ in site.cookies]
    listeners = [
        asyncio.create_task(listen(site, cookie, log, what))
        for listen, known in ((page, log.seen), (console, log.consoles))
        for cookie, what in zip(site.cookies, known, strict=True)
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
    groups = await asyncio.to_thread(stored_groups)
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while (missed_alerts(log) or missed_groups(log, groups)) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    for task in listeners:
        task.cancel()
    await asyncio.gather(*listeners, return_exceptions=True)


def missed_alerts(log: Log) -> set[str]:
    return set().union(*(log.alerts - seen for seen in log.seen))


def missed_groups(log: Log, groups: dict[int, State]) -> set[int]:
    return {group for group, state in groups.items() if any(state != each.groups.get(group) for each in log.consoles)}


def stored_numbers() -> collections.Counter[int]:
    from ingest.models import IngestEvent

    return collections.Counter(IngestEvent.objects.values_list("data__number", flat=True))


def stored_groups() -> dict[int, State]:
    from alerts.models import AlertGroup

    return {group: State(*state) for group, *state in AlertGroup.objects.values_list("id", "revision", "count")}


def miscounted_groups(groups: dict[int, State]) -> set[int]:
    from alerts.models import SecurityAlert

    alerts = collections.Counter(SecurityAlert.objects.values_list("group_id", flat=True))
    return {group for group, state in groups.items() if alerts[group] != state.count} | alerts.keys() - groups.keys()


def miscounted_usage() -> list[str]:
    """Tables of derived counts that differ from a count of the stored events, once the worker's task has run again."""
    from django.db.models.functions import TruncHour, TruncMinute

    from insights import usage
    from insights.models import DeviceHour, DeviceMinute, TenantHour, TenantMinute

    usage.count_latest()
    tables = (
        (DeviceMinute, "device_id", TruncMinute), (TenantMinute, "tenant_id", TruncMinute),
        (DeviceHour, "device_id", TruncHour), (TenantHour, "tenant_id", TruncHour),
    )  # fmt: skip
    return [model.__name__ for model, owner, period in tables if derived(model, owner) != recounted(owner, period)]


def derived(model: Any, owner: str) -> dict[tuple[Any, ...], int]:
    """The counts of a table, by owner, start of the period and kind."""
    from ingest.models import Kind

    rows = model.objects.values(owner, "start", *Kind.values)
    return {(row[owner], row["start"], kind): row[kind] for row in rows for kind in Kind.values if row[kind]}


def recounted(owner: str, period: Any) -> dict[tuple[Any, ...], int]:
    """The same, from the events."""
    from django.db.models import Count

    from ingest.models import IngestEvent

    events = IngestEvent.objects.order_by().values_list(owner, period("received_at"), "kind")
    return {tuple(group): count for *group, count in events.annotate(count=Count("pk"))}


def main(rounds: int) -> int:
    log, site = Log(), Site()
    try:
        asyncio.run(torture(site, rounds, log))
        stored, groups = stored_numbers(), stored_groups()
        if miscounted := miscounted_groups(groups):
            log.faults.append(f"groups that do not count their alerts: {miscounted}")
        if tables := miscounted_usage():
            log.faults.append(f"counts that are not those of the events: {tables}")
    finally:
        site.end()
    lost = log.acknowledged - set(stored)
    doubled = [number for number, times in stored.items() if times > 1]
    print(f"answers: {dict(log.answers)}, sockets closed with: {dict(log.closed)}")
    print(f"faults: {log.faults or 'none'}, stored and never acknowledged: {len(set(stored) - log.acknowledged)}")
    missed = {"missed_alerts": len(missed_alerts(log)), "missed_groups": len(missed_groups(log, groups))}
    figures = {"acknowledged": len(log.acknowledged), "lost": len(lost), "doubled": len(doubled)} | missed
    print(f"rounds={rounds}", *(f"{name}={figure}" for name, figure in figures.items()))
    broken = lost or doubled or any(missed.values()) or log.faults or set(stored) != log.acknowledged
    return int(bool(broken))


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1])))
