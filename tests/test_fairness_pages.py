"""What somebody does to the pages, devices do not feel."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from django.contrib.auth.models import User

from tests.events import log
from tests.live import HTTP, Server

pytestmark = pytest.mark.django_db(transaction=True)


class Others(threading.Thread):
    """Another device, which sends one small batch after the other. `longest` is what it waited at most, in seconds."""

    def __init__(self, server: Server, key: str) -> None:
        super().__init__()
        self.server, self.key = server, key
        self.waits: list[float] = []
        self.answers: set[int] = set()
        self.ended = threading.Event()

    def run(self) -> None:
        with httpx.Client(headers={"X-Device-Key": self.key}, **HTTP) as client:
            while not self.ended.is_set():
                began = time.monotonic()
                self.answers.add(client.post(f"{self.server.url}/v1/ingest", json=[log()]).status_code)
                self.waits.append(time.monotonic() - began)

    def __enter__(self) -> "Others":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.join()


def test_forty_wrong_logins_at_once_stop_nobody(start_server, transactional_db, key):
    server = start_server()
    User.objects.create_user("ada", password="correct horse")
    page = httpx.get(f"{server.url}/login/", **HTTP)
    form = {"username": "ada", "password": "wrong", "csrfmiddlewaretoken": page.cookies["ingestcloud_csrf"]}
    memory = psutil.Process(server.process.pid).memory_info().rss

    def log_in(number: int) -> int:
        headers = {"X-Forwarded-For": f"192.0.2.{number}"}  # the server trusts this machine as its proxy
        return httpx.post(f"{server.url}/login/", data=form, cookies=page.cookies, headers=headers, **HTTP).status_code

    with Others(server, key) as others, ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(log_in, range(40)))
    assert set(answers) <= {200, 503}
    assert others.answers == {204}
    assert max(others.waits) < 1
    assert psutil.Process(server.process.pid).memory_info().rss - memory < 200 * 2**20
    server.stop()
