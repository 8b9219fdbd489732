"""A real Chromium, what it shows of the console, and a network that can be cut."""

import contextlib
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator

import pytest
from django.contrib.auth import get_user_model
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tenants.models import Membership, Role
from tests.support.events import alert

expect.set_options(timeout=20_000)  # milliseconds; a busy machine draws slowly

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None and os.environ.get("BROWSER") == "required":
        pytest.fail("BROWSER=required, but Chromium is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: chromium)")
    # Playwright's event loop runs in this thread, so Django would take the tests for async code.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def open_page(browser: Browser):
    """Opens pages, each in a browser session of its own. A script error, or a violation of the content security
    policy, fails the test."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def open_page(viewport: dict[str, int] = DESK, **options) -> Page:
        contexts.append(browser.new_context(viewport=viewport, **options))  # type: ignore[arg-type]
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def page(open_page) -> Page:
    return open_page()


@pytest.fixture
def make_analyst(tenant):
    """Creates users who can log in, members of `tenant`."""

    def make(name: str, role: Role = Role.ANALYST):
        user = get_user_model().objects.create_user(name, password="a good password")
        Membership.objects.create(user=user, tenant=tenant, role=role)
        return user

    return make


@pytest.fixture
def analyst(make_analyst):
    return make_analyst("ada")


def log_in(page: Page, url: str, user: str = "ada", path: str = "/alerts/") -> None:
    page.goto(url + path)
    page.fill("#id_username", user)
    page.fill("#id_password", "a good password")
    page.press("#id_password", "Enter")
    page.wait_for_url(url + path)


def open_console(page: Page, url: str, user: str = "ada", query: str = "") -> None:
    """Log in, and wait until the console is live."""
    log_in(page, url, user, f"/alerts/{query}")
    expect_live(page)


def expect_live(page: Page) -> None:
    expect(page.locator("#connection .words")).to_have_text("Live")
    expect(page.locator(".list-end")).to_have_text("")


def rows(page: Page) -> Locator:
    """The rows near the screen."""
    return page.locator("#groups .rows .row")


def row(page: Page, title: str) -> Locator:
    return page.locator("#groups .rows .row", has=page.locator(".row-name", has_text=re.compile(rf"^{title}$")))


def titles(page: Page) -> list[str]:
    return page.locator("#groups .row-name").all_inner_texts()


def expect_titles(page: Page, *expected: str) -> None:
    expect(page.locator("#groups .row-name")).to_have_text(list(expected))


def expect_fits(page: Page) -> None:
    """Neither the page nor what is open above it is wider than the screen."""
    boxes = page.evaluate(
        """[document.documentElement, ...document.querySelectorAll("dialog[open], :popover-open")]
           .map(({scrollWidth, clientWidth}) => scrollWidth - clientWidth)"""
    )
    assert not any(excess > 0 for excess in boxes), boxes


def focus(page: Page, title: str) -> None:
    row(page, title).focus()


def flood(server, key: str, count: int, severity: str = "low") -> None:
    """As many groups of one alert each."""
    for start in range(0, count, 1000):
        numbers = range(start, min(start + 1000, count))
        batch = [alert(f"{severity} {number}", severity=severity) for number in numbers]
        assert server.post(key, batch).status_code == 204


class Uplink:
    """A TCP relay to the server that can be cut and restored, like a network."""

    def __init__(self, port: int) -> None:
        self.target, self.whole, self.stalled, self.sockets = port, True, False, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if not self.whole:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self.sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._relay, args=(source, sink), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if not self.stalled:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def say(self, data: bytes) -> None:
        """Send `data` to the client of every connection, as if it came from the server."""
        for client in self.sockets[::2]:
            with contextlib.suppress(OSError):
                client.sendall(data)

    def stall(self) -> None:
        """Swallow everything until the connections are cut."""
        self.stalled = True

    def cut(self) -> None:
        self.whole = self.stalled = False
        for end in self.sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.sockets.clear()

    def mend(self) -> None:
        self.whole = True

    def close(self) -> None:
        self.cut()
        self.listener.close()


@pytest.fixture
def uplink(server) -> Iterator[Uplink]:
    uplink = Uplink(server.port)
    yield uplink
    uplink.close()
