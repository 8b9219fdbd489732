"""A fake site that gives scripted answers, for testing clients."""

import json
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HANG_UP = object()


def problem(status: int, code: str = "", headers: dict[str, str] | None = None, **members: object):
    """An answer in the site's format."""
    body = json.dumps({"status": status, "code": code, "detail": f"Because of {code}.", **members}).encode()
    return status, {"Content-Type": "application/problem+json", **(headers or {})}, body


ACCEPTED = (204, {}, b"")
BUSY = problem(503, "storage_unavailable")


class Site:
    """A real HTTP server that gives the answers in `answers`, then 204s, and keeps every request that it received."""

    def __init__(self) -> None:
        site = self
        self.answers: deque = deque()
        self.received: list[tuple[bytes, dict[str, str], float]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                site.received.append((body, dict(self.headers), time.monotonic()))
                answer = site.answers.popleft() if site.answers else ACCEPTED
                if answer is HANG_UP:
                    self.close_connection = True
                    return
                status, headers, content = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content))) if status != 204 else None
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST  # noqa: N815  a client that follows a redirect may use GET

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True  # stopping must not wait for kept-alive connections
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def bodies(self) -> list[bytes]:
        return [body for body, _, _ in self.received]

    @property
    def numbers(self) -> list[list[int]]:
        """The `n` of every event, request by request."""
        return [[event["data"]["n"] for event in json.loads(body)] for body in self.bodies]
