"""The console in a real Chromium: what arrives, and whether the page says how live it is."""

import re

import pytest
from django.contrib.sessions.models import Session
from playwright.sync_api import expect

from alerts.models import AlertGroup, Status
from tests.support.browser import (
    PHONE,
    expect_live,
    expect_titles,
    flood,
    log_in,
    open_console,
    row,
    rows,
    titles,
)
from tests.support.events import alert, log

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_alert_arrives_within_two_seconds_of_its_post(server, key, analyst, page):
    open_console(page, server.url)
    server.post(key, [log(), alert("Port scan detected", severity="critical")])
    first = rows(page).first
    expect(first).to_contain_text("Port scan detected", timeout=2000)
    expect(first).to_have_attribute("data-severity", "critical")


def test_a_page_whose_socket_was_cut_says_so_and_catches_up(server, uplink, key, analyst, page):
    open_console(page, uplink.url)
    server.post(key, [alert("before")])
    expect(rows(page)).to_have_count(1)

    uplink.cut()
    expect(page.locator("#connection .words")).not_to_have_text("Live")
    for number in range(3):
        server.post(key, [alert(f"missed {number}")])
    server.post(key, [alert("missed 2", severity="critical")])
    expect(rows(page)).to_have_count(1)

    uplink.mend()
    expect(page.locator("#connection .words")).to_have_text("Live")
    expect_titles(page, "missed 2", "missed 1", "missed 0", "before")
    expect(page.locator("#came")).to_contain_text("4 alerts came in, and 3 groups changed; the worst is critical")


def test_a_page_opened_late_shows_groups_by_their_last_alert(server, key, analyst, page):
    for number in range(5):
        server.post(key, [alert(f"alert {number}")])
    server.post(key, [log(), alert("alert 1")])
    open_console(page, server.url)
    expect(rows(page)).to_have_count(5)
    assert titles(page) == [f"alert {number}" for number in (1, 4, 3, 2, 0)]
    expect(row(page, "alert 1")).to_contain_text("2")


def test_a_page_opened_late_shows_critical_groups_that_are_still_new(server, key, analyst, page):
    server.post(key, [alert("critical one", severity="critical"), alert("closed one", severity="critical")])
    AlertGroup.objects.filter(title="closed one").update(status=Status.CLOSED)
    flood(server, key, 1000)
    open_console(page, server.url)
    expect(rows(page).first).to_contain_text("critical one")
    expect(row(page, "closed one")).to_have_count(0)


def test_older_groups_are_loaded_while_scrolling(server, key, analyst, page):
    flood(server, key, 450)
    open_console(page, server.url)
    expect(page.locator(".list-count")).to_contain_text("of 450 groups")
    page.locator(".list-end").scroll_into_view_if_needed()
    for _ in range(10):
        page.keyboard.press("End")
        page.wait_for_timeout(100)
    expect(row(page, "low 0")).to_be_visible()
    expect(page.locator(".list-count")).to_have_text("450 groups")


def test_what_a_device_sends_is_shown_as_plain_text(server, key, analyst, page):
    hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    open_console(page, server.url)
    server.post(key, [alert(hostile, description=hostile, source_ip="10.0.0.1")])
    expect(page.locator("#groups .row-name").first).to_have_text(hostile)
    page.reload()
    expect(page.locator("#groups .row-name").first).to_have_text(hostile)
    rows(page).first.click()
    expect(page.locator("#detail-title")).to_have_text(hostile)
    expect(page.locator("#detail .records .as-sent").first).to_have_text(hostile)
    expect(page.locator("#detail .detail-description")).to_have_text(hostile)
    assert "owned" not in page.title()


@pytest.mark.once
def test_a_page_says_that_its_session_has_ended(server, analyst, page):
    open_console(page, server.url)
    page.context.clear_cookies()
    Session.objects.all().delete()
    page.evaluate("dispatchEvent(new Event('offline'))")
    expect(page.locator("#session-ended")).to_be_visible(timeout=30_000)


@pytest.mark.once
def test_a_request_without_a_session_says_so(server, key, analyst, page):
    server.post(key, [alert("Port scan")])
    open_console(page, server.url)
    Session.objects.all().delete()
    rows(page).first.click()
    expect(page.locator("#session-ended")).to_be_visible()
    expect(page.locator("#connection .words")).to_have_text("Closed")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_a_phone(server, key, analyst, open_page, scheme):
    long = {"description": "y" * 2000, "source_ip": "2001:db8::1", "destination_ip": "::1"}
    server.post(key, [alert("x" * 300, **long), alert("ق" * 300, severity="critical")])
    page = open_page(PHONE | {"width": 360}, color_scheme=scheme)
    open_console(page, server.url)
    expect(rows(page)).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in re.findall(r"\d+", background)[:3])
    assert (brightness < 200) == (scheme == "dark")
    rows(page).last.click()
    expect(page.locator("#detail .as-sent").first).to_be_visible()
    assert page.evaluate("document.getElementById('detail').scrollWidth") <= 360


@pytest.mark.parametrize("code", [1011, 1012, 1013, 4408])
def test_a_page_reconnects_after_a_close_that_is_not_final(server, key, analyst, page, uplink, code):
    open_console(page, uplink.url)
    uplink.say(b"\x88\x02" + code.to_bytes(2))  # a close frame
    expect(page.locator("#connection")).to_have_attribute("data-state", "closed")
    server.post(key, [alert("missed one")])
    expect_live(page)
    expect(row(page, "missed one")).to_have_count(1)


def test_a_page_that_is_offline_says_so_at_once(server, key, analyst, page):
    open_console(page, server.url)
    page.context.set_offline(True)
    expect(page.locator("#connection .words")).to_have_text("Offline")
    server.post(key, [alert("missed one")])
    page.context.set_offline(False)
    expect_live(page)
    expect(row(page, "missed one")).to_have_count(1)


def test_a_page_that_may_be_offline_is_not_live_until_its_socket_has_answered(server, analyst, page):
    open_console(page, server.url)
    page.evaluate(
        "() => { const words = document.querySelector('#connection .words'); window.seen = [];"
        " new MutationObserver(() => window.seen.push(words.textContent)).observe(words, {childList: true});"
        " window.dispatchEvent(new Event('offline')); }"
    )
    expect(page.locator("#connection .words")).to_have_text("Live")
    assert page.evaluate("() => window.seen") == ["Checking…", "Live"]


def test_a_dead_socket_is_noticed_within_thirty_seconds(server, key, analyst, page, uplink):
    """The network swallows everything and closes nothing, as behind a firewall that lost its state."""
    page.clock.install()
    open_console(page, uplink.url)
    uplink.stall()
    server.post(key, [alert("missed one")])
    page.clock.fast_forward(15_000)
    page.clock.fast_forward(14_000)
    expect(page.locator("#connection .words")).not_to_have_text("Live")
    uplink.cut()
    uplink.mend()
    page.clock.fast_forward(15_000)
    expect_live(page)
    expect(row(page, "missed one")).to_have_count(1)


def test_the_title_of_the_tab_counts_what_is_new(server, key, analyst, page):
    open_console(page, server.url)
    expect(page).to_have_title("Alerts · IngestCloud")
    server.post(key, [alert("critical one", severity="critical"), alert("low one", severity="low")])
    expect(page).to_have_title("1 critical, 2 new · Alerts · IngestCloud")


@pytest.mark.once
def test_a_user_without_a_tenant_is_told_so(server, page):
    from django.contrib.auth import get_user_model

    get_user_model().objects.create_user("ada", password="a good password")
    log_in(page, server.url)
    expect(page.locator("#no-tenant")).to_be_visible()
