"""The real server as a subprocess on its own port, and clients for it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from django.conf import settings
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parents[2]
START_WITHIN = 30  # seconds
HTTP: dict[str, Any] = {
    "timeout": 30,
    "verify": False,
}  # no TLS, and loading certificates takes 20 ms each time


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_database_url() -> str:
    """The URL of the tests' database, for another process."""
    name = settings.DATABASES["default"]["NAME"]
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        return f"sqlite:///{name}"
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()


test_database_url.__test__ = False  # type: ignore[attr-defined]


class Server:
    """A server process on the tests' database. `log` is its output."""

    def __init__(self, log_file: Path, command: str = "uvicorn", **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log_file = log_file
        commands = {
            "uvicorn": ["ingestcloud.server", "--access-log"],
            "daphne": ["daphne", "-p", str(self.port), "ingestcloud.asgi:application"],
        }
        with log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *commands[command]],
                cwd=ROOT,
                env=os.environ | {"DATABASE_URL": test_database_url(), "PORT": str(self.port)} | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_WITHIN
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/healthz", **HTTP).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        self.stop()
        raise AssertionError(f"the server did not start:\n{self.log}")

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    def post(self, key: str | None, body: object = None, **kwargs) -> httpx.Response:
        """Post a batch: `body` as JSON, or the raw bytes of `content=`."""
        headers = kwargs.pop("headers", {})
        if key is not None:
            headers = {"X-Device-Key": key} | headers
        if "content" in kwargs:
            headers = {"Content-Type": "application/json"} | headers
        else:
            kwargs["json"] = body
        return httpx.post(f"{self.url}/v1/ingest", headers=headers, **HTTP, **kwargs)

    def register(
        self, key: str | bytes | None, body: object = None, secret: str | bytes | None = None, **kwargs
    ) -> httpx.Response:
        """Register a device with a provisioning key, and with its own secret as the `Idempotency-Key`."""
        given = {"X-Provisioning-Key": key, "Idempotency-Key": secret}
        headers: Any = kwargs.pop("headers", {}) | {name: value for name, value in given.items() if value is not None}
        if not kwargs:
            kwargs["json"] = body
        elif "content" in kwargs:
            headers["Content-Type"] = "application/json"
        return httpx.post(f"{self.url}/api/v1/devices/register", headers=headers, **HTTP, **kwargs)

    def socket(
        self, cookie: str = "", query: str = "", origin: str | None = None, path: str = "/api/ws/security"
    ) -> ClientConnection:
        """Open a socket, for alerts unless `path` says otherwise, with a session's cookie."""
        headers = {"Cookie": cookie} if cookie else {}
        return connect(
            f"ws://127.0.0.1:{self.port}{path}{query}",
            origin=origin or self.url,  # type: ignore[arg-type]
            additional_headers=headers,
            max_size=None,
            proxy=None,
        )

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
