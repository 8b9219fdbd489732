"""The console without a mouse and without eyes: axe finds nothing, and the keyboard reaches everything."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import Page, expect

from alerts.models import AlertGroup, Disposition, Status
from tests.support.alert_rows import suppression_rule
from tests.support.browser import DESK, PHONE, expect_titles, open_console, row, rows
from tests.support.events import alert

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]


def assert_accessible(page: Page) -> None:
    found = Axe().run(page)
    assert not found.violations_count, found.generate_report()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing(server, key, tenant, analyst, open_page, viewport, scheme):
    severities = ("critical", "high", "medium", "low", "info")
    addresses = {"source_ip": "10.0.0.1", "destination_ip": "2001:db8::1"}
    server.post(key, [alert(f"{each} one", severity=each, description="Text.", **addresses) for each in severities])
    AlertGroup.objects.filter(title="low one").update(status=Status.ACKNOWLEDGED, acknowledged_count=0, count=1200)
    suppression_rule(tenant, timezone.now(), title="low one")
    page = open_page(viewport, color_scheme=scheme)
    page.goto(server.url)
    assert_accessible(page)  # the login
    open_console(page, server.url)
    expect(rows(page)).to_have_count(5)
    assert_accessible(page)
    row(page, "low one").focus()
    page.keyboard.press("x")
    page.keyboard.press("i")
    expect(page.locator("#toasts")).to_contain_text("In progress")
    assert_accessible(page)
    page.keyboard.press("o")
    expect(page.locator("#detail .records")).not_to_have_count(0)
    expect(page.locator("#detail")).to_contain_text("high one")
    assert_accessible(page)
    for pressed in "cens?":
        page.keyboard.press(pressed)
        expect(page.locator("dialog[open]")).to_be_visible()
        assert_accessible(page)
        page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    for name, panel, words in (
        ("Filters", "filter-panel", "Assignee"),
        ("Saved", "view-panel", "Nothing saved yet"),
        ("Suppressions", "rules-panel", "Scanner of ours"),
        ("Alarm", "alarm-panel", "Sound"),
    ):
        page.get_by_role("button", name=name).click()
        expect(page.locator(f"#{panel}")).to_be_visible()
        expect(page.locator(f"#{panel}")).to_contain_text(words)
        assert_accessible(page)
        page.keyboard.press("Escape")
    page.get_by_label("Fold by").select_option("source")
    expect(row(page, "10.0.0.1")).to_contain_text("5 groups")
    assert_accessible(page)
    page.keyboard.press("w")
    expect(page.locator("#wall")).to_be_visible()
    assert_accessible(page)
    page.get_by_role("button", name="Leave").click()
    page.get_by_label("Search titles").fill("nothing is called this")
    expect(page.locator("#list .empty")).to_be_visible()
    assert_accessible(page)


def tab_to(page: Page, selector: str) -> None:
    for _ in range(60):
        if page.evaluate("selector => document.activeElement?.matches(selector) ?? false", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the tab key does not lead to {selector}")


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.querySelector('.row-name')?.textContent ?? document.activeElement.id")


def test_a_shift_is_worked_without_a_mouse(server, key, analyst, page):
    for title in ("third", "second", "first"):
        server.post(key, [alert(title, description=f"About the {title}.")])
    page.goto(server.url)
    # The browser moves the focus when it next draws, which may be after the page has loaded.
    expect(page.locator("#id_username")).to_be_focused()
    page.keyboard.type("ada")
    page.keyboard.press("Tab")
    page.keyboard.type("a good password")
    page.keyboard.press("Enter")
    expect_titles(page, "first", "second", "third")
    # One stop of the tab key for the whole list; the arrows and j and k move in it.
    tab_to(page, "#groups .row")
    assert focused(page) == "first"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("j")
    assert focused(page) == "third"
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.locator("#detail-title")).to_be_focused()
    expect(page.locator("#detail-title")).to_have_text("second")
    # The keys work in the opened group, too.
    page.keyboard.press("a")
    expect(page.locator(".detail-state")).to_contain_text("Acknowledged by ada")
    page.keyboard.press("j")
    expect(page.locator("#detail-title")).to_have_text("third")
    expect(page.locator("#detail")).to_contain_text("About the third.")
    page.keyboard.press("Escape")
    expect(row(page, "third")).to_be_focused()
    # Without a letter: the buttons of the opened group, and the dialog that one of them opens.
    page.keyboard.press("Enter")
    tab_to(page, "#detail [data-command=close]")
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    tab_to(page, "#close textarea")
    page.keyboard.type("a, c and u are text here")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#toasts")).to_contain_text("Closed as true positive: “third”")
    assert AlertGroup.objects.get(title="third").disposition == Disposition.TRUE_POSITIVE
    page.keyboard.press("Escape")
    expect_titles(page, "first", "second")
    page.keyboard.press("/")
    page.keyboard.type("sec")
    expect_titles(page, "second")


def test_single_letters_can_be_switched_off(server, key, analyst, page):
    server.post(key, [alert("first")])
    open_console(page, server.url)
    page.keyboard.press("?")
    page.get_by_role("checkbox", name="Single letters do something").uncheck()
    page.get_by_role("button", name="Done").click()
    page.reload()
    row(page, "first").focus()
    page.keyboard.press("a")
    page.keyboard.press("?")
    expect(page.locator("dialog[open]")).to_have_count(0)
    page.keyboard.press("Enter")
    expect(page.locator("#detail-title")).to_have_text("first")
    assert AlertGroup.objects.get().status == Status.NEW


def test_a_screen_reader_is_told_what_a_row_is(server, key, analyst, page):
    server.post(key, [alert("Port scan", severity="critical", source_ip="10.0.0.1")] * 2 + [alert("other")])
    open_console(page, server.url)
    expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", "3")
    first = page.get_by_role("row", name="critical Port scan from 10.0.0.1")
    expect(first).to_have_attribute("aria-rowindex", "2")
    expect(first).to_have_attribute("aria-selected", "false")
