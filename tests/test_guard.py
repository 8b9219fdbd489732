"""How many connections one client may have."""

import asyncio
from types import SimpleNamespace

import pytest

from ingestcloud import guard
from ingestcloud.guard import Guard


class Connection:
    config = SimpleNamespace(app=None, forwarded_allow_ips="192.0.2.1")

    def __init__(self, address: str, everyone: set["Connection"]) -> None:
        self.client, self.connections = (address, 1), everyone
        everyone.add(self)

    def end_overdue(self, now: float) -> None:
        """It never is."""


class Entrance:
    """A guard with room for 200 connections."""

    def __init__(self) -> None:
        self.guard = Guard(asyncio.get_running_loop())
        self.everyone: set[Connection] = set()

    def admits(self, address: str) -> bool:
        return self.guard.admit(Connection(address, self.everyone))


@pytest.fixture
async def entrance(monkeypatch) -> Entrance:
    monkeypatch.setattr(guard, "max_connections", lambda: 200)
    return Entrance()


@pytest.mark.parametrize("is_counted_again", [False, True])
async def test_a_network_of_ipv6_gets_at_most_a_quarter_of_the_connections(entrance, is_counted_again):
    """A client has a /64 of its own, and may use another address of it for each connection."""
    assert all(entrance.admits(f"2001:db8::{number:x}") for number in range(50))
    if is_counted_again:
        entrance.guard._look()
    assert not entrance.admits("2001:db8::ffff")
    assert entrance.admits("2001:db8:0:1::1")


async def test_a_connection_that_has_ended_no_longer_counts(entrance):
    for _ in range(60):
        assert entrance.admits("2001:db8::1")
        entrance.guard.forget(entrance.everyone.pop())


async def test_an_ipv4_address_counts_alone(entrance):
    assert all(entrance.admits("198.51.100.1") for _ in range(50))
    assert not entrance.admits("::ffff:198.51.100.1")
    assert entrance.admits("198.51.100.2")


async def test_a_trusted_proxy_gets_more(entrance):
    assert all(entrance.admits("192.0.2.1") for _ in range(150))
