"""What is critical, new or in use stays on the page, whatever arrives and however long the page was away."""

import re
import signal

import pytest
from playwright.sync_api import Page, expect

from tests.support.alert_rows import Backup
from tests.support.browser import Uplink, expect_live, expect_titles, flood, focus, open_console, row, rows
from tests.support.events import alert, log

pytestmark = pytest.mark.django_db(transaction=True)


class Awake:
    """The page sees everything as it happens."""

    def __init__(self, page: Page, uplink: Uplink) -> None:
        self.page, self.uplink = page, uplink

    def leave(self) -> None:
        pass

    def come_back(self) -> None:
        pass


class Frozen(Awake):
    """The browser stops the scripts of a tab in the background."""

    def leave(self) -> None:
        self.session = self.page.context.new_cdp_session(self.page)
        self.session.send("Page.setWebLifecycleState", {"state": "frozen"})

    def come_back(self) -> None:
        self.session.send("Page.setWebLifecycleState", {"state": "active"})


class Offline(Awake):
    def leave(self) -> None:
        self.uplink.cut()

    def come_back(self) -> None:
        self.uplink.mend()


@pytest.mark.once
@pytest.mark.parametrize("state", [Awake, Frozen, Offline])
def test_a_critical_alert_before_5000_low_ones_is_on_the_screen(server, key, analyst, page, uplink, state):
    open_console(page, uplink.url)
    way = state(page, uplink)
    way.leave()
    server.post(key, [alert("critical one", severity="critical")])
    flood(server, key, 5000)
    way.come_back()
    expect(page.locator(".list-count")).to_contain_text("5,001", timeout=60_000)
    expect(row(page, "critical one")).to_be_in_viewport()
    expect(rows(page).first).to_contain_text("critical one")


def test_a_critical_alert_is_on_the_screen_after_the_server_was_killed(
    start_server, key, analyst, page, transactional_db
):
    server = start_server()
    uplink = Uplink(server.port)
    open_console(page, uplink.url)
    server.post(key, [alert("critical one", severity="critical")])
    flood(server, key, 5000)
    expect(page.locator(".list-count")).to_contain_text("5,001", timeout=60_000)
    server.process.send_signal(signal.SIGKILL)
    uplink.cut()
    expect(page.locator("#connection .words")).not_to_have_text("Live")
    other = start_server()
    other.post(key, [alert("critical two", severity="critical")])
    flood(other, key, 100, "medium")
    uplink.target = other.port
    uplink.mend()
    expect_live(page)
    expect(page.locator(".list-count")).to_contain_text("5,102", timeout=60_000)
    for title in ("critical one", "critical two"):
        expect(row(page, title)).to_be_in_viewport()
    expect(page.locator("#came")).to_contain_text("the worst is critical")
    uplink.close()


def test_a_thousand_repeats_are_one_row_and_the_focus_stays(server, key, analyst, page):
    open_console(page, server.url)
    server.post(key, [alert("quiet one"), alert("loud one", source_ip="10.0.0.1")])
    focus(page, "loud one")
    for _ in range(10):
        repeats = [alert("loud one", source_ip="10.0.0.1") for _ in range(100)]
        assert server.post(key, [log(), *repeats]).status_code == 204
    expect(row(page, "loud one")).to_contain_text("1,001")
    expect(rows(page)).to_have_count(2)
    expect(row(page, "loud one")).to_be_focused()


def test_rows_hold_still_while_somebody_works_in_the_list(server, key, analyst, page):
    open_console(page, server.url)
    server.post(key, [alert("first one")])
    server.post(key, [alert("second one")])
    focus(page, "second one")
    before = row(page, "second one").bounding_box()
    server.post(key, [log(), alert("third one"), alert("first one")])
    expect(page.locator(".waiting")).to_have_text("↑ 1 new, 1 moved")
    assert row(page, "second one").bounding_box() == before
    expect(row(page, "first one")).to_contain_text("2")

    page.keyboard.press(".")
    expect(page.locator("#groups .row-name")).to_have_text(["first one", "third one", "second one"])
    expect(row(page, "first one")).to_be_focused()
    expect(page.locator(".waiting")).to_be_hidden()


def test_a_critical_alert_does_not_wait_while_somebody_works_in_the_list(server, key, analyst, page):
    open_console(page, server.url)
    server.post(key, [alert("first one")])
    focus(page, "first one")
    server.post(key, [alert("critical one", severity="critical")])
    expect(row(page, "critical one")).to_be_in_viewport()
    expect(rows(page).first).to_contain_text("critical one")
    expect(row(page, "first one")).to_be_focused()


def test_a_critical_alert_outside_the_filters_is_counted_and_one_click_away(server, key, analyst, page):
    server.post(key, [alert("critical one", severity="critical"), alert("low one", severity="low")])
    open_console(page, server.url, query="?severity=low")
    expect(page.locator(".outside")).to_have_text("1 new critical group outside these filters")
    expect(rows(page)).to_have_count(1)
    server.post(key, [alert("critical two", severity="critical")])
    expect(page.locator(".outside")).to_have_text("2 new critical groups outside these filters")
    expect(page).to_have_title(re.compile("^2 critical"))
    page.locator(".outside").click()
    expect_titles(page, "critical two", "critical one")
    expect(page.locator(".outside")).to_be_hidden()


def test_a_reader_who_has_scrolled_down_stays_where_they_are(server, key, analyst, page):
    flood(server, key, 90)
    open_console(page, server.url)
    page.evaluate("window.scrollTo(0, 1500)")
    expect(row(page, "low 45")).to_be_in_viewport()
    before = row(page, "low 45").bounding_box()
    server.post(key, [alert("critical one", severity="critical"), alert("low one", severity="low")])
    expect(page.locator(".waiting")).to_have_text("↑ 1 critical, 1 new")
    assert row(page, "low 45").bounding_box() == before
    page.locator(".waiting").click()
    expect(row(page, "critical one")).to_be_focused()
    expect(row(page, "low one")).to_be_in_viewport()


SHOWN_AND_LEFT = """
    [".list-count", ".list-left"].map((name) => document.querySelector(name).textContent)
        .reduce((sum, words) => sum + Number(words.split(" ")[0].replaceAll(",", "")), 0)
"""


@pytest.mark.once
@pytest.mark.slow
def test_what_is_in_use_makes_no_room_and_what_does_is_counted(server, key, analyst, page):
    titles = ("selected one", "opened one", "focused one")
    server.post(key, [alert("critical one", severity="critical"), *(alert(title, severity="low") for title in titles)])
    open_console(page, server.url)
    focus(page, "selected one")
    page.keyboard.press("x")
    row(page, "opened one").click()
    focus(page, "focused one")
    flood(server, key, 12_000)
    page.wait_for_function("() => 12_004 === " + SHOWN_AND_LEFT)
    expect(row(page, "focused one")).to_be_focused()
    left = page.locator(".list-left")
    gone = left.inner_text()
    assert "older groups made room" in gone
    page.keyboard.press(".")
    expect(row(page, "critical one")).to_be_in_viewport()
    expect(page.locator(".bulk-count")).to_have_text("1 selected")
    expect(page.locator("#detail-title")).to_have_text("opened one")
    # They are still at the end of the list, and what made room comes back from the server.
    page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
    expect(row(page, "selected one")).to_be_visible()
    expect(left).not_to_have_text(gone)


def test_a_page_shows_what_a_restored_database_has(server, key, analyst, page):
    for title in ("first", "second"):
        server.post(key, [alert(title)])
    backup = Backup()
    open_console(page, server.url)
    server.post(key, [alert("lost"), alert("first"), alert("first")])
    expect_titles(page, "first", "lost", "second")
    focus(page, "first")
    page.keyboard.press("Enter")
    expect(page.locator("#detail .facts")).to_contain_text("3 alerts")
    backup.restore()
    server.post(key, [alert("after")])
    expect(page.locator("#came")).to_contain_text("the database was restored")
    expect_titles(page, "after", "second", "first")
    expect(row(page, "first").locator(".count")).to_have_text("")
    expect(page.locator("#detail .facts")).to_contain_text("1 alert")
