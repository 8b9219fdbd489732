"""Limits how many connections there are, in total and per client, and ends those that are overdue."""

import asyncio
import resource
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from common.headers import network_of_address
from common.loops import PerLoop

if TYPE_CHECKING:
    from ingestcloud.protocol import BoundedProtocol

LOOK_EVERY_SECONDS = 2.0
MAX_CONNECTIONS = 4000
ONE_NETWORK_SHARE = 4  # one network gets at most a quarter of the connections
RESERVED_FILES = 200  # per process, for the database, the sockets of the channel layer and logs


def max_connections() -> int:
    """MAX_CONNECTIONS, or what the limit on open files leaves. Raises that limit as far as allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + RESERVED_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(100, most - RESERVED_FILES)


# Parsing an address takes microseconds, and each recount asks for those of all connections.
_network_of = lru_cache(2 * MAX_CONNECTIONS)(network_of_address)


class Guard:
    """Checks the connections of a loop at intervals: a timer for each would cost more than it saves.

    One network (`network_of_address`) gets at most a quarter of all connections, or it could lock everyone else out.
    Behind a proxy every client has the proxy's address, so the addresses that uvicorn trusts for X-Forwarded-For
    (FORWARDED_ALLOW_IPS, by default this machine) are exempt; those proxies should limit their clients themselves.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.most = max_connections()
        self._loop = loop
        self._watched: set[BoundedProtocol] = set()
        self._all: set[Any] = set()  # uvicorn's set: WebSockets too
        self._by_network: Counter[str] = Counter()
        self._trusted: Any = None
        self._look()

    def admit(self, connection: "BoundedProtocol") -> bool:
        """Count `connection` and watch it until `forget`. Returns whether there is room for it."""
        self._all = connection.connections
        self._watched.add(connection)
        if connection.client is None:
            return len(self._all) <= self.most
        address = connection.client[0]
        network = _network_of(address)
        self._by_network[network] += 1
        return len(self._all) <= self.most and (
            self._by_network[network] <= self.most // ONE_NETWORK_SHARE or self._is_trusted(address, connection.config)
        )

    def forget(self, connection: "BoundedProtocol") -> None:
        self._watched.discard(connection)
        if connection.client is not None:
            self._by_network[_network_of(connection.client[0])] -= 1

    def hand_over(self, connection: "BoundedProtocol") -> None:
        """Stop watching it: it is a WebSocket now, which the application watches. It still counts."""
        self._watched.discard(connection)

    def _is_trusted(self, address: str, config: Config) -> bool:
        if self._trusted is None:
            self._trusted = ProxyHeadersMiddleware(config.app, config.forwarded_allow_ips).trusted_hosts  # type: ignore[arg-type]
        return address in self._trusted

    def _look(self) -> None:
        now = self._loop.time()
        for connection in list(self._watched):
            connection.end_overdue(now)
        # We aren't notified when a WebSocket ends, so count again from scratch.
        self._by_network = Counter(_network_of(connection.client[0]) for connection in self._all if connection.client)
        self._loop.call_later(LOOK_EVERY_SECONDS, self._look)


guard_of = PerLoop(Guard).of
