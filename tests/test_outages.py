"""What happens while the database is gone, locked, full, or being migrated."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import psycopg
import pytest

from ingest.backlog import MAX_REQUESTS
from tests.support.assertions import assert_problem
from tests.support.events import alert, log
from tests.support.fairness import assert_within, measures_waiting
from tests.support.live import ROOT, Server
from tests.support.proxy import StallingProxy
from tests.support.servers import PostgreSQL, own_servers, servers_only

pytestmark = [pytest.mark.outage, servers_only, own_servers]

HANG = 12.0  # seconds; an answer that takes longer is a hang


class Site:
    """A database that no other test uses, a server on it, and a device."""

    def __init__(self, start_server) -> None:
        self.start_server = start_server
        self.database = PostgreSQL()
        self.manage("migrate", "--verbosity", "0")
        self.manage("create_tenant", "acme")
        self.key = self.manage("create_device", "acme", "press-01").strip()
        self.server: Server = self.serve()

    def serve(self, **environment: str) -> Server:
        return self.start_server(**({"DATABASE_URL": self.database.url} | environment))

    def manage(self, *arguments: str) -> str:
        environment = os.environ | {"DATABASE_URL": self.database.url}
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout

    def post(self, body: bytes, server: Server | None = None) -> httpx.Response:
        began = time.monotonic()
        answer = (server or self.server).post(self.key, content=body)
        assert time.monotonic() - began < HANG
        return answer

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.database.url, autocommit=True)

    def stored(self) -> Counter[int]:
        """How many times each number is stored."""
        with self.connect() as connection:
            query = "SELECT data->'number', count(*) FROM ingest_events WHERE data ? 'number' GROUP BY 1"
            return Counter(dict(connection.execute(query).fetchall()))


@pytest.fixture(scope="module")
def site(start_server) -> Site:
    return Site(start_server)


numbers = itertools.count()


def body_of(number: int) -> bytes:
    return json.dumps([log(number=number), alert()]).encode()


class Sender(threading.Thread):
    """Sends batch after batch, each until it is acknowledged. `refusals` are the answers that were not 204."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.acknowledged: list[int] = []
        self.refusals: list[httpx.Response] = []
        self.failure: Exception | None = None
        self.ended = threading.Event()

    def run(self) -> None:
        try:
            while not self.ended.is_set():
                self.send(next(numbers))
        except Exception as failure:  # noqa: BLE001  raised by `end`
            self.failure = failure

    def send(self, number: int) -> None:
        body = body_of(number)
        while (answer := self.site.post(body)).status_code != 204:
            self.refusals.append(answer)
            time.sleep(0.1)
        self.acknowledged.append(number)

    def end(self) -> None:
        self.ended.set()
        self.join()
        if self.failure:
            raise self.failure


@contextmanager
def load(site: Site) -> Iterator[list[Sender]]:
    """Four devices send. At the end, everything they sent has been acknowledged, and stored exactly once."""
    senders = [Sender(site) for _ in range(4)]
    for sender in senders:
        sender.start()
    wait_for_more(senders)
    try:
        yield senders
        wait_for_more(senders)
    finally:
        for sender in senders:
            sender.end()
    for sender in senders:
        for answer in sender.refusals:
            assert_problem(answer, 503, "storage_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
    stored = site.stored()
    assert {stored[number] for sender in senders for number in sender.acknowledged} == {1}


def wait_for_more(senders: list[Sender]) -> None:
    """Wait until each has had another batch acknowledged."""
    counts = [len(sender.acknowledged) for sender in senders]
    deadline = time.monotonic() + 30
    while any(len(sender.acknowledged) <= count for sender, count in zip(senders, counts, strict=True)):
        assert time.monotonic() < deadline, [sender.failure for sender in senders]
        time.sleep(0.02)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_database_restarted_under_load_is_503_in_the_meantime(site, mode):
    with load(site) as senders:
        site.database.stop(mode)
        time.sleep(6)  # longer than the pool waits
        site.database.start()
        wait_for_more(senders)
    assert any(sender.refusals for sender in senders)


def test_a_locked_table_is_503_until_it_is_unlocked(site):
    body = body_of(-1)
    with site.connect() as other, other.transaction():
        other.execute("LOCK TABLE ingest_events IN ACCESS EXCLUSIVE MODE")
        assert_problem(site.post(body), 503, "storage_unavailable")
    assert site.post(body).status_code == 204
    assert site.stored()[-1] == 1


WAITS_FOR_LOCK = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


def test_the_backlog_is_bounded(site):
    server = site.serve(INGEST_BACKLOG_BYTES="10000")
    waiting, more = body_of(-2), json.dumps([log() for _ in range(100)]).encode()
    with site.connect() as other, other.transaction():
        other.execute("LOCK TABLE ingest_events IN ACCESS EXCLUSIVE MODE")
        first = threading.Thread(target=site.post, args=[waiting, server])
        first.start()
        deadline = time.monotonic() + 10
        with site.connect() as watching:  # without a transaction, in which it would always see the same
            while not watching.execute(WAITS_FOR_LOCK).fetchone()[0]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        while (answer := site.post(more, server)).json()["code"] != "overloaded":
            assert time.monotonic() < deadline
        assert_problem(answer, 503, "overloaded")
        assert int(answer.headers["Retry-After"]) > 0
    first.join()
    for body in (waiting, more):
        while (
            answer := site.post(body, server)
        ).status_code != 204:  # the server gave up on the first, but still holds it
            assert_problem(answer, 503, "overloaded")
            assert time.monotonic() < deadline + 10
    assert site.stored()[-2] == 1
    server.stop()


FILL = """
INSERT INTO ingest_events (tenant_id, device_id, batch_id, kind, timestamp, data, received_at)
SELECT 1, 1, 0, 'log', now(), jsonb_build_object('message', repeat('x', 150)), now() FROM generate_series(1, 150000)
"""
LARGEST = "SELECT max(pg_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'ingest_events'::regclass"


def test_a_full_disk_is_503_until_there_is_room(site):
    with site.connect() as connection:
        connection.execute(FILL)  # so that the limit exceeds the size of a WAL file, 16 MiB
        limit = connection.execute(LARGEST).fetchone()[0]
    with load(site):
        site.database.stop("fast")
        site.database.start(limit)
        deadline = time.monotonic() + 30
        while "could not extend file" not in site.server.log:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        site.database.stop("fast")
        site.database.start()


def test_a_migration_under_load_loses_nothing(site):
    """First what servers of the next version see before `migrate`, then the lock that it takes."""
    with load(site), site.connect() as connection:
        connection.execute("ALTER TABLE ingest_batches RENAME COLUMN idempotency_key TO not_there_yet")
        time.sleep(2)
        with connection.transaction():
            connection.execute("ALTER TABLE ingest_batches RENAME COLUMN not_there_yet TO idempotency_key")
            time.sleep(2)


@measures_waiting
def test_dead_connections_are_given_up(site):
    """As with a load balancer that has lost them but still answers keepalives; new connections work."""
    proxy = StallingProxy(site.database.connect)
    server = site.serve(DATABASE_URL=site.database.url_through(proxy.port))
    bodies = (body_of(next(numbers)) for _ in iter(int, 1))
    # Open many: one for each thread that looks up keys, and one for each writer.
    with ThreadPoolExecutor(MAX_REQUESTS) as pool:
        list(pool.map(lambda _: site.post(next(bodies), server), range(24)))
        list(pool.map(lambda _: httpx.get(f"{server.url}/login/", timeout=30), range(12)))
    proxy.stall()
    stalled_at = time.monotonic()
    ready = httpx.get(f"{server.url}/readyz", timeout=30)
    assert_within(2, time.monotonic() - stalled_at)
    assert (ready.status_code, ready.json()["database"]) == (503, "unavailable")
    while (answer := site.post(next(bodies), server)).status_code != 204:
        assert_problem(answer, 503, "storage_unavailable")
    # Time for one operation on a dead connection, or one queued behind another.
    assert_within(20, time.monotonic() - stalled_at)
    with ThreadPoolExecutor(MAX_REQUESTS) as pool:
        answers = list(pool.map(lambda _: site.post(next(bodies), server).status_code, range(48)))
    assert set(answers) == {204}
    while httpx.get(f"{server.url}/readyz", timeout=30).status_code != 200:
        assert_within(30, time.monotonic() - stalled_at)
    proxy.release()
    assert site.post(next(bodies), server).status_code == 204
    server.stop()


def test_readyz_says_which_sequence_is_behind_its_table(site):
    assert site.post(body_of(next(numbers))).status_code == 204
    assert httpx.get(f"{site.server.url}/readyz").status_code == 200
    for table in ("ingest_batches", "ingest_events", "security_alerts", "devices", "tenants"):
        with site.connect() as connection:
            last = connection.execute(f"SELECT nextval(pg_get_serial_sequence('{table}', 'id'))").fetchone()[0]
            connection.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 1, false)")
            answer = httpx.get(f"{site.server.url}/readyz")
            connection.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {last})")
        assert answer.status_code == 503
        assert answer.json()["database"] == f"the sequence is behind the table: {table}"
    assert httpx.get(f"{site.server.url}/readyz").status_code == 200


def test_sqlsequencereset_repairs_the_sequences(site):
    """The repair that docs/operations.md advises after a switch-over."""
    assert site.post(body_of(next(numbers))).status_code == 204
    with site.connect() as connection:
        for table in ("ingest_batches", "ingest_events", "security_alerts", "devices", "tenants"):
            connection.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 1, false)")
        assert httpx.get(f"{site.server.url}/readyz").status_code == 503
        connection.execute(site.manage("sqlsequencereset", "--no-color", "tenants", "devices", "alerts", "ingest"))
    assert httpx.get(f"{site.server.url}/readyz").status_code == 200
    assert site.post(body_of(next(numbers))).status_code == 204
