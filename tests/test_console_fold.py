"""Groups under one another by what they share, for the eye and for selecting."""

import pytest
from playwright.sync_api import Page, expect

from alerts.models import AlertGroup, Status
from tests.support.browser import PHONE, expect_fits, expect_titles, focus, open_console, row, rows
from tests.support.events import alert

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]

SCANNER, PRINTER = {"source_ip": "10.0.0.7"}, {"source_ip": "10.0.0.9"}


@pytest.fixture
def console(server, key, analyst, page) -> Page:
    for title, source in (("scan", SCANNER), ("jam", PRINTER), ("probe", SCANNER), ("fan", {}), ("toner", PRINTER)):
        server.post(key, [alert(title, severity="high" if title == "scan" else "low", **source)])
    open_console(page, server.url)
    expect_titles(page, "toner", "fan", "probe", "jam", "scan")
    return page


def fold_by(page: Page, what: str) -> None:
    page.get_by_label("Fold by").select_option(what)


def test_groups_with_the_same_source_are_under_one_another(console):
    fold_by(console, "source")
    expect_titles(console, "10.0.0.9", "toner", "jam", "fan", "10.0.0.7", "probe", "scan")
    heading = row(console, "10.0.0.7")
    expect(heading).to_have_attribute("data-severity", "high")
    expect(heading).to_contain_text("2 groups")
    expect(heading).to_contain_text("2 new")
    console.reload()
    expect_titles(console, "10.0.0.9", "toner", "jam", "fan", "10.0.0.7", "probe", "scan")
    fold_by(console, "nothing")
    expect_titles(console, "toner", "fan", "probe", "jam", "scan")


def test_a_heading_folds_its_groups_but_never_a_new_critical_one(server, key, console):
    fold_by(console, "source")
    row(console, "10.0.0.7").click()
    expect_titles(console, "10.0.0.9", "toner", "jam", "fan", "10.0.0.7")
    expect(row(console, "10.0.0.7")).to_contain_text("folded")
    server.post(key, [alert("break-in", severity="critical", **SCANNER), alert("more", **SCANNER)])
    expect_titles(console, "10.0.0.7", "break-in", "10.0.0.9", "toner", "jam", "fan")
    focus(console, "10.0.0.7")
    console.keyboard.press("Enter")
    expect_titles(console, "10.0.0.7", "break-in", "probe", "scan", "10.0.0.9", "toner", "jam", "fan")
    console.get_by_role("button", name="1 new").click()
    expect_titles(console, "10.0.0.7", "break-in", "more", "probe", "scan", "10.0.0.9", "toner", "jam", "fan")


def test_a_heading_selects_its_groups(console):
    fold_by(console, "source")
    row(console, "10.0.0.7").locator(".row-check").click()
    expect(console.locator(".bulk-count")).to_have_text("2 selected")
    for title in ("10.0.0.7", "probe", "scan"):
        expect(row(console, title)).to_have_attribute("aria-selected", "true")
    console.keyboard.press("x")
    expect(console.locator("#bulk")).to_be_hidden()
    console.keyboard.press("x")
    console.keyboard.press("a")
    expect(console.locator("#toasts")).to_contain_text("Acknowledged: 2 groups")
    acknowledged = AlertGroup.objects.filter(status=Status.ACKNOWLEDGED).values_list("title", flat=True)
    assert set(acknowledged) == {"probe", "scan"}


def test_the_keys_walk_over_headings_and_a_key_on_one_means_all_below_it(console):
    fold_by(console, "source")
    focus(console, "fan")
    console.keyboard.press("j")
    expect(row(console, "10.0.0.7")).to_be_focused()
    console.keyboard.press("a")
    expect(console.locator("#toasts")).to_contain_text("Acknowledged: 2 groups")
    console.keyboard.press("j")
    console.keyboard.press("Shift+J")
    expect(console.locator(".bulk-count")).to_have_text("2 selected")
    console.keyboard.press("Escape")
    console.keyboard.press("Enter")
    expect(console.locator("#detail-title")).to_have_text("scan")
    console.keyboard.press("k")
    console.keyboard.press("k")
    expect(row(console, "10.0.0.7")).to_be_focused()
    expect(console.locator("#detail-title")).to_have_text("probe")


def test_repeats_change_a_heading_and_move_nobody_who_reads(server, key, console):
    fold_by(console, "source")
    focus(console, "fan")
    server.post(key, [alert("scan", severity="critical", description="again", **PRINTER)] * 3)
    server.post(key, [alert("scan", description="again", **SCANNER)] * 3)
    expect(row(console, "10.0.0.7").locator(".count")).to_contain_text("5")
    expect(row(console, "fan")).to_be_focused()
    expect(rows(console).first).to_contain_text("10.0.0.9")


def test_a_folded_list_fits_a_phone(console):
    console.set_viewport_size(PHONE)
    fold_by(console, "title")
    expect_titles(console, "toner", "fan", "probe", "jam", "scan")
    fold_by(console, "source")
    expect(row(console, "10.0.0.9")).to_contain_text("2 groups")
    expect_fits(console)
