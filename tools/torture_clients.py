"""What sends and listens while `tools.torture` breaks things: devices, programs on the alert socket, and consoles."""

import asyncio
import collections
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

ANSWER_SECONDS = 15.0  # how long a device waits for an answer: a later one is a fault
REPEATED = 50  # titles of alerts that come again and again


class Site(Protocol):
    """Where to send and to listen."""

    processes: list[Any]  # each with the `port` of a server


class State(NamedTuple):
    """What is known of a group."""

    revision: int
    count: int  # alerts


@dataclass
class Console:
    """What an open console knows."""

    revision: int = 0
    groups: dict[int, State] = field(default_factory=dict)


@dataclass
class Log:
    """What devices, pages and consoles saw."""

    acknowledged: set[int] = field(default_factory=set)
    alerts: set[str] = field(default_factory=set)  # acknowledged ones, by title
    seen: list[set[str]] = field(default_factory=list)  # by page
    consoles: list[Console] = field(default_factory=list)
    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    closed: collections.Counter[int] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)


numbers = itertools.count()


def make_batch() -> tuple[bytes, set[int], set[str]]:
    """A body, the numbers of its events, and the titles of those alerts that come once."""
    chosen = [next(numbers) for _ in range(random.choice((1, 1, 3, 40)))]
    titles = {f"alert {number}" for number in chosen if random.random() < 0.2}
    batch: list[dict[str, Any]] = []
    for number in chosen:
        event: dict[str, Any] = {"kind": "log", "data": {"level": "info", "message": "…"}}
        if f"alert {number}" in titles:
            event = {"kind": "security_alert", "data": {"title": f"alert {number}", "severity": "high"}}
        elif random.random() < 0.05:
            event = {"kind": "security_alert", "data": {"title": f"repeat {number % REPEATED}", "severity": "low"}}
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
    """Listens indefinitely, like a program: reconnects with the last id that it has, and pings."""
    last = 0
    while True:
        async with contextlib.aclosing(frames(site, f"/api/ws/security?since={last}", cookie, log)) as received:
            async for content in received:
                if content["type"] == "alert":
                    if content["data"]["id"] <= last:
                        log.faults.append(f"alert {content['data']['id']} came after {last}")
                    last = content["data"]["id"]
                    seen.add(content["data"]["title"])
        await asyncio.sleep(random.uniform(0, 0.5))


async def console(site: Site, cookie: str, log: Log, known: Console) -> None:
    """Listens indefinitely, like the console: reconnects with its revision, and loads what the socket does not send.

    Now and then the page is loaded again, and knows nothing.
    """
    while True:
        if random.random() < 0.1:
            known.revision = 0
            known.groups.clear()
        async with contextlib.aclosing(frames(site, f"/api/ws/groups?since={known.revision}", cookie, log)) as received:
            async for content in received:
                if content["type"] == "reset" and not await load(site, cookie, known, log):
                    break
                for group in content["groups"] if content["type"] == "groups" else ():
                    take(group, known, log)
                known.revision = max(known.revision, content.get("revision", 0))
        await asyncio.sleep(random.uniform(0, 0.5))


def take(group: dict[str, Any], known: Console, log: Log) -> None:
    state, last = State(group["revision"], group["count"]), known.groups.get(group["id"], State(0, 0))
    if state.revision >= last.revision and state.count < last.count:
        log.faults.append(f"group {group['id']} has {state} after {last}")
    known.groups[group["id"]] = max(state, last)


async def load(site: Site, cookie: str, known: Console, log: Log) -> bool:
    """Take from the list what changed after the revision of `known`. False if no server answers."""
    newest, page = 0, "/api/v1/groups?status=any&limit=200"
    url, headers = f"http://127.0.0.1:{random.choice(site.processes).port}", {"Cookie": cookie}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=ANSWER_SECONDS) as client:
        while page:
            try:
                answer = await client.get(page)
            except httpx.TransportError:
                return False
            if answer.status_code != 200:
                if answer.status_code != 503:
                    log.faults.append(f"{page} answered {answer.status_code}: {answer.text}")
                return False
            content = answer.json()
            newest = newest or content["revision"]
            for group in content["results"]:
                take(group, known, log)
            is_last = not content["results"] or content["results"][-1]["revision"] <= known.revision
            page = "" if is_last else content["next"]
    known.revision = newest
    return True


async def frames(site: Site, path: str, cookie: str, log: Log) -> AsyncIterator[dict[str, Any]]:
    """The frames of one socket of one server, until it is closed for whatever reason."""
    port = random.choice(site.processes).port
    with contextlib.suppress(OSError, ConnectionClosed, InvalidHandshake, InvalidMessage):
        async with connect(
            f"ws://127.0.0.1:{port}{path}",
            origin=f"http://127.0.0.1:{port}",  # type: ignore[arg-type]
            additional_headers={"Cookie": cookie},
            proxy=None,
        ) as socket:
            pinging = asyncio.create_task(ping(socket))
            try:
                async for frame in socket:
                    yield json.loads(frame)
            finally:
                pinging.cancel()
                log.closed[int(socket.close_code or 0)] += 1


async def ping(socket: ClientConnection) -> None:
    while True:
        await asyncio.sleep(2)
        await socket.send('{"type":"ping"}')


async def send_and_forget(client: httpx.AsyncClient, url: str, body: bytes) -> None:
    with contextlib.suppress(httpx.TransportError):
        await client.post(url, content=body)
