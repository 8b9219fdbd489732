"""The pages in a real Chromium, against a running server."""

import contextlib
import os
import re
import shutil
import socket
import threading

import pytest
from django.contrib.auth import get_user_model
from playwright.sync_api import Browser, Page, expect, sync_playwright

from alerts.models import AlertGroup, SecurityAlert, Status
from tests.support.assertions import assert_problem
from tests.support.events import alert, log

pytestmark = pytest.mark.django_db(transaction=True)
expect.set_options(timeout=20_000)  # milliseconds; a busy machine draws thousands of rows slowly

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


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
def page(browser: Browser):
    """A page on which a script error, or a violation of the content security policy, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
    yield page
    context.close()
    assert not errors


@pytest.fixture
def analyst(tenant):
    user = get_user_model().objects.create_user("ada", password="a good password")
    user.tenants.add(tenant)
    return user


def log_in(page: Page, url: str, user: str = "ada", path: str = "/alerts/") -> None:
    page.goto(url + path)
    page.fill("#id_username", user)
    page.fill("#id_password", "a good password")
    page.press("#id_password", "Enter")
    page.wait_for_url(url + path)


class Uplink:
    """A TCP relay to the server that can be cut and restored, like a network."""

    def __init__(self, port: int) -> None:
        self.target, self.whole, self.sockets = port, True, []
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
            server = socket.create_connection(("127.0.0.1", self.target))
            self.sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._relay, args=(source, sink), daemon=True).start()

    @staticmethod
    def _relay(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def say(self, data: bytes) -> None:
        """Send `data` to the client of every connection, as if it came from the server."""
        for client in self.sockets[::2]:
            with contextlib.suppress(OSError):
                client.sendall(data)

    def cut(self) -> None:
        self.whole = False
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
def uplink(server):
    uplink = Uplink(server.port)
    yield uplink
    uplink.close()


def titles(page: Page) -> list[str]:
    return page.locator("#alerts .alert-title").all_inner_texts()


def test_an_alert_arrives_within_two_seconds_of_its_post(server, key, analyst, page):
    log_in(page, server.url)
    expect(page.locator("#socket-state")).to_have_attribute("data-state", "open")
    server.post(key, [log(), alert("Port scan detected", severity="critical")])
    row = page.locator("#alerts > li").first
    expect(row).to_contain_text("Port scan detected", timeout=2000)
    expect(row).to_have_attribute("data-severity", "critical")


def test_a_page_whose_socket_was_cut_says_so_and_catches_up(server, uplink, key, analyst, page):
    log_in(page, uplink.url)
    state = page.locator("#socket-state")
    expect(state).to_have_attribute("data-state", "open")
    server.post(key, [alert("before")])
    expect(page.locator("#alerts > li")).to_have_count(1)

    uplink.cut()
    expect(state).not_to_have_attribute("data-state", "open")
    for number in range(3):
        server.post(key, [alert(f"missed {number}")])
    expect(page.locator("#alerts > li")).to_have_count(1)

    uplink.mend()
    expect(state).to_have_attribute("data-state", "open", timeout=20_000)
    expect(page.locator("#alerts > li")).to_have_count(4)
    assert titles(page) == ["missed 2", "missed 1", "missed 0", "before"]


def test_a_page_opened_late_shows_recent_alerts_newest_first(server, key, analyst, page):
    for number in range(5):
        server.post(key, [alert(f"alert {number}")])
    log_in(page, server.url)
    expect(page.locator("#alerts > li")).to_have_count(5)
    assert titles(page) == [f"alert {number}" for number in (4, 3, 2, 1, 0)]


def test_what_a_device_sends_is_shown_as_plain_text(server, key, analyst, page):
    hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    log_in(page, server.url)
    server.post(key, [alert(hostile, description=hostile, source_ip="10.0.0.1")])
    expect(page.locator("#alerts .alert-title").first).to_have_text(hostile)
    page.reload()
    expect(page.locator("#alerts .alert-title").first).to_have_text(hostile)
    assert "owned" not in page.title()


@pytest.mark.once
def test_a_page_says_that_its_session_has_ended(server, analyst, page):
    log_in(page, server.url)
    expect(page.locator("#socket-state")).to_have_attribute("data-state", "open")
    page.context.clear_cookies()
    page.evaluate("dispatchEvent(new Event('offline'))")
    from django.contrib.sessions.models import Session

    Session.objects.all().delete()
    expect(page.locator("#session-ended")).to_be_visible(timeout=30_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_a_phone(server, key, analyst, browser, scheme):
    server.post(key, [alert("x" * 300, description="y" * 2000, source_ip="2001:db8::1", destination_ip="::1")])
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    log_in(page, server.url)
    expect(page.locator("#alerts > li")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in re.findall(r"\d+", background)[:3])
    assert (brightness < 200) == (scheme == "dark")
    context.close()


def test_a_key_issued_in_the_admin_works_until_it_is_revoked_there(server, device_key, page):
    get_user_model().objects.create_superuser("ada", password="a good password")
    log_in(page, server.url, path="/admin/")
    page.goto(f"{server.url}/admin/devices/device/{device_key.device.pk}/change/")
    page.get_by_role("link", name="Issue device key").click()
    page.get_by_role("button", name="Issue the key").click()
    plaintext = page.locator("#plaintext").inner_text()
    assert server.post(plaintext, [alert()]).status_code == 204
    assert SecurityAlert.objects.count() == 1

    page.get_by_role("link", name="Back to the device").click()
    row = page.locator("#device-keys tr", has_text=plaintext[:12])
    row.get_by_role("link", name="Revoke").click()
    page.get_by_role("button", name="Revoke the key").click()
    expect(row).to_contain_text("revoked")
    assert_problem(server.post(plaintext, [alert()]), 401, "invalid_device_key")


@pytest.mark.once
def test_the_admin_works_under_its_content_security_policy(start_server, transactional_db, page, key, device_key):
    """Opens each kind of page. The `page` fixture fails the test if the policy blocks anything."""
    server = start_server()  # a new one, which has not cached content types that other tests deleted
    get_user_model().objects.create_superuser("root", password="a good password")
    assert server.post(key, [log(), alert()]).status_code == 204
    assert server.post(key, [log(), {}]).status_code == 400
    log_in(page, server.url, "root", "/admin/")
    links = page.eval_on_selector_all("#nav-sidebar a[href^='/admin/']", "links => links.map(link => link.href)")
    assert len(set(links)) >= 10
    for link in sorted(set(links)):
        page.goto(link)
        first = page.locator("#result_list tbody tr a").first
        if first.count():
            page.goto(server.url + first.get_attribute("href"))
    page.goto(f"{server.url}/admin/devices/provisioningkey/add/")
    page.goto(f"{server.url}/admin/devices/device/{device_key.device.pk}/issue-key/")
    page.get_by_role("button", name="Issue the key").click()
    expect(page.locator("#plaintext")).to_contain_text("dvc_")
    page.get_by_role("button", name="Copy the key").click()
    # The theme's own scripts run: its menu can be opened.
    page.locator("[x-on\\:click*='openUserLinks'], [x-on\\:click*='userLinks']").first.click()


@pytest.mark.once
def test_the_lists_and_forms_of_the_admin_fit_a_laptop(start_server, transactional_db, page, key):
    server = start_server()
    root = get_user_model().objects.create_superuser("root", password="a good password")
    addresses = {"source_ip": "198.51.100.254", "destination_ip": "198.51.100.253"}
    batch = [log(message="x" * 500), alert("A title of some length " * 5, severity="critical", **addresses)]
    assert server.post(key, batch).status_code == 204
    log_in(page, server.url, "root", "/admin/")
    for path in ("ingest/ingestevent/", "alerts/securityalert/"):
        page.goto(f"{server.url}/admin/{path}")
        assert page.locator("#result_list").bounding_box()["width"] <= 960
    page.goto(f"{server.url}/admin/auth/user/{root.pk}/change/")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def flood(server, key: str, count: int, severity: str = "low") -> None:
    for start in range(0, count, 1000):
        numbers = range(start, min(start + 1000, count))
        batch = [alert(f"{severity} {number}", severity=severity) for number in numbers]
        assert server.post(key, batch).status_code == 204


def row(page: Page, title: str):
    return page.locator("#alerts .alert", has_text=re.compile(rf"{title}\b"))


def test_critical_expanded_and_focused_alerts_stay_and_removed_ones_are_counted(server, key, analyst, page):
    log_in(page, server.url)
    expect(page.locator("#socket-words")).to_have_text("Live")
    for title, severity in (("critical one", "critical"), ("opened one", "low"), ("focused one", "low")):
        server.post(key, [alert(title, severity=severity)])
    row(page, "opened one").get_by_role("button").click()
    row(page, "focused one").get_by_role("button").focus()
    flood(server, key, 5000)
    expect(page.locator("#alerts .alert").first).to_contain_text("low 4999", timeout=30_000)
    for title in ("critical one", "opened one", "focused one"):
        expect(row(page, title)).to_have_count(1)
    expect(row(page, "focused one").get_by_role("button")).to_be_focused()
    shown = page.locator("#alerts .alert").count()
    assert shown <= 503
    expect(page.locator("#removed")).to_contain_text(f"{5003 - shown:,} older alerts are not shown")


@pytest.mark.once
def test_of_too_many_critical_alerts_the_oldest_are_removed_and_counted(server, key, analyst, page):
    """No other alerts are removed for them, because the page must still show what is new."""
    log_in(page, server.url)
    expect(page.locator("#socket-words")).to_have_text("Live")
    for title in ("opened one", "focused one", "another one"):
        server.post(key, [alert(title, severity="critical")])
    row(page, "opened one").get_by_role("button").click()
    row(page, "focused one").get_by_role("button").focus()
    flood(server, key, 600)
    expect(page.locator("#alerts .alert").first).to_contain_text("low 599", timeout=30_000)
    expect(page.locator("#removed")).to_have_text(
        "100 older alerts are not shown, to make room; critical alerts are kept"
    )
    flood(server, key, 2100, "critical")
    expect(page.locator("#alerts .alert").first).to_contain_text("critical 2099", timeout=60_000)
    expect(page.locator("#alerts [data-severity=critical]")).to_have_count(2002)
    expect(page.locator("#alerts [data-severity=low]")).to_have_count(500)
    for title, count in {
        "opened one": 1, "focused one": 1, "another one": 0, "critical 99": 0, "critical 100": 1,
        "low 99": 0, "low 100": 1,
    }.items():  # fmt: skip
        expect(row(page, title)).to_have_count(count)
    expect(page.locator("#removed")).to_have_text(
        "201 older alerts are not shown, to make room, including 101 critical"
    )
    server.post(key, [alert("new one", severity="low")])
    expect(page.locator("#alerts .alert").first).to_contain_text("new one")
    expect(row(page, "low 100")).to_have_count(0)


@pytest.mark.parametrize("code", [1011, 1012, 1013, 4408])
def test_a_page_reconnects_after_a_close_that_is_not_final(server, key, analyst, page, uplink, code):
    log_in(page, uplink.url)
    state = page.locator("#socket-state")
    expect(state).to_have_attribute("data-state", "open")
    uplink.say(b"\x88\x02" + code.to_bytes(2))  # a close frame
    expect(state).to_have_attribute("data-state", "closed")
    server.post(key, [alert("missed one")])
    expect(state).to_have_attribute("data-state", "open", timeout=20_000)
    expect(row(page, "missed one")).to_have_count(1)


def test_a_page_that_was_offline_misses_no_critical_alert(server, key, analyst, page, uplink):
    log_in(page, uplink.url)
    expect(page.locator("#socket-words")).to_have_text("Live")
    uplink.cut()
    server.post(key, [alert("critical one", severity="critical")])
    flood(server, key, 3000)
    uplink.mend()
    expect(page.locator("#alerts .alert").first).to_contain_text("low 2999", timeout=60_000)
    expect(row(page, "critical one")).to_have_count(1)
    expect(page.locator("#removed")).to_contain_text("older alerts are not shown")


def test_a_page_opened_late_shows_critical_alerts_that_are_still_open(server, key, analyst, page):
    server.post(key, [alert("critical one", severity="critical"), alert("closed one", severity="critical")])
    AlertGroup.objects.filter(title="closed one").update(status=Status.CLOSED)
    flood(server, key, 1000)
    log_in(page, server.url)
    expect(row(page, "critical one")).to_have_count(1)
    expect(row(page, "closed one")).to_have_count(0)


def test_a_page_that_may_be_offline_is_not_live_until_its_socket_has_answered(server, analyst, page):
    log_in(page, server.url)
    expect(page.locator("#socket-words")).to_have_text("Live")
    page.evaluate(
        "() => { const words = document.getElementById('socket-words'); window.seen = [];"
        " new MutationObserver(() => window.seen.push(words.textContent)).observe(words, {childList: true});"
        " window.dispatchEvent(new Event('offline')); }"
    )
    expect(page.locator("#socket-words")).to_have_text("Live")
    assert page.evaluate("() => window.seen") == ["Checking…", "Live"]
