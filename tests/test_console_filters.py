"""The filters of the console: in the address, on the server, and the same for what the socket brings."""

from datetime import timedelta
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.utils import timezone
from playwright.sync_api import Page, expect

from alerts.models import AlertGroup, Disposition, Status
from tests.support.browser import expect_live, expect_titles, focus, open_console, row, rows
from tests.support.events import alert

pytestmark = pytest.mark.django_db(transaction=True)


def filter_button(page: Page, value: str):
    return page.locator(f"button[data-filter][data-value={value}]")


def test_filters_are_in_the_address_and_the_back_button_leaves_them(server, key, analyst, page):
    server.post(key, [alert("high one"), alert("low one", severity="low"), alert("low two", severity="low")])
    open_console(page, server.url)
    expect(filter_button(page, "low").locator(".filter-count")).to_have_text("2")
    filter_button(page, "low").click()
    expect(page).to_have_url(f"{server.url}/alerts/?severity=low")
    expect(filter_button(page, "low")).to_have_attribute("aria-pressed", "true")
    expect(rows(page)).to_have_count(2)
    page.keyboard.press("/")
    page.keyboard.type("TWO low", delay=20)
    expect_titles(page, "low two")
    expect(page).to_have_url(f"{server.url}/alerts/?severity=low&q=TWO+low")
    expect(page.locator(".filter-chip")).to_have_text("title: TWO low")

    page.go_back()
    expect(rows(page)).to_have_count(2)
    expect(page).to_have_url(f"{server.url}/alerts/?severity=low")
    page.go_back()
    expect(rows(page)).to_have_count(3)
    page.go_forward()
    expect(rows(page)).to_have_count(2)


def test_an_address_with_filters_shows_the_same_to_a_colleague(server, key, analyst, page):
    server.post(key, [alert("inside", source_ip="10.1.2.3"), alert("outside", source_ip="192.0.2.1")])
    open_console(page, server.url, query="?address=10.0.0.0%2F8")
    expect_titles(page, "inside")
    expect(page.locator(".filter-chip")).to_have_text("address: 10.0.0.0/8")
    page.locator(".filter-chip").click()
    expect(rows(page)).to_have_count(2)


def test_the_panel_has_the_other_filters(server, key, analyst, page):
    server.post(key, [alert("mine"), alert("nobody's")])
    open_console(page, server.url)
    focus(page, "mine")
    page.keyboard.press("m")
    expect(row(page, "mine").locator(".row-assignee")).to_have_text("ada")
    page.get_by_role("button", name="Filters").click()
    page.locator("#filter-panel [name=assignee]").select_option("me")
    expect_titles(page, "mine")
    expect(page).to_have_url(f"{server.url}/alerts/?assignee=me")
    page.locator("#filter-panel [name=assignee]").select_option("none")
    expect_titles(page, "nobody's")


def test_an_address_in_an_opened_group_is_a_filter(server, key, analyst, page):
    server.post(key, [alert("one", source_ip="10.0.0.1"), alert("two", destination_ip="10.0.0.1"), alert("three")])
    open_console(page, server.url)
    row(page, "one").click()
    expect(page.locator("#detail")).to_contain_text("two")  # has the same address
    page.locator("#detail .facts").get_by_role("button", name="10.0.0.1").click()
    expect_titles(page, "two", "one")


def test_what_arrives_is_shown_only_if_it_passes_the_filters(server, key, analyst, page):
    open_console(page, server.url, query="?severity=high&q=scan")
    server.post(key, [alert("port SCAN"), alert("port scan", severity="low"), alert("login")])
    expect_titles(page, "port SCAN")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("severity=awful", 'severity: "awful" is not a valid choice.'),
        ("since=yesterday", "since: Datetime has wrong format."),
        ("address=10.0.0.0/99&within=1y", "address: This is not an address or a network. within:"),
    ],
)
def test_filters_that_nobody_understands_say_so_and_hide_nothing_critical(server, key, analyst, page, query, words):
    server.post(key, [alert("low one", severity="low")])
    open_console(page, server.url)
    page.goto(f"{server.url}/alerts/?{query}")
    page.locator("#connection[data-state=open]").wait_for()
    expect(page.locator(".list-end")).to_contain_text(words)
    server.post(key, [alert("bad one", severity="critical")])
    expect(page.locator(".outside")).to_have_text("1 new critical group outside these filters")
    expect(rows(page)).to_have_count(0)
    page.get_by_role("button", name="Clear all").click()
    expect_titles(page, "bad one", "low one")
    page.go_back()
    expect(page.locator(".list-end")).to_contain_text(words)
    expect(rows(page)).to_have_count(0)


def test_a_group_that_is_not_there_has_nothing_to_press(server, key, analyst, page):
    server.post(key, [alert("first")])
    open_console(page, server.url, query="?open=987654321")
    detail = page.locator("#detail")
    expect(detail.get_by_role("heading")).to_have_text("Not found")
    expect(detail.get_by_role("button")).to_have_count(1)  # the one that closes it
    row(page, "first").click()
    expect(detail.get_by_role("heading").first).to_have_text("first")
    expect(detail.get_by_role("button", name="Acknowledge")).to_be_visible()


def test_a_new_address_opens_a_group(server, key, analyst, page):
    server.post(key, [alert("first", description="What happened.")])
    group = AlertGroup.objects.get()
    open_console(page, server.url, query=f"?open={group.pk}")
    expect(page.locator("#detail")).to_contain_text("What happened.")
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    expect(page).to_have_url(f"{server.url}/alerts/")
    row(page, "first").click()
    expect(page).to_have_url(f"{server.url}/alerts/?open={group.pk}")
    page.go_back()
    expect(page.locator("#detail")).to_be_hidden()


MATCHES = """
    async ([query, groups, user]) => {
        const { matcher } = await import("/static/alerts/console/match.js");
        return groups.filter(matcher(new URLSearchParams(query), user)).map(({ id }) => id);
    }
"""


def test_the_page_matches_groups_as_the_server_does(server, key, device_key, analyst, page, make_analyst):
    """Over all groups and many filters: what the page would keep of them is what the server lists."""
    ben = make_analyst("ben")
    v4, v6 = {"source_ip": "10.1.2.3", "destination_ip": "192.0.2.1"}, {"source_ip": "2001:db8::1"}
    server.post(key, [alert("Port scan", severity="critical", **v4), alert("ÄRGER mit ß", severity="low", **v6)])
    server.post(key, [alert("mapped", source_ip="::ffff:10.1.2.3"), alert("nowhere"), alert("100% port_x", **v4)])
    groups = {group.title: group for group in AlertGroup.objects.all()}
    now = timezone.now()
    AlertGroup.objects.filter(title="nowhere").update(assignee=ben, assignee_name="ben", status=Status.ACKNOWLEDGED)
    AlertGroup.objects.filter(title="mapped").update(assignee=analyst, assignee_name="ada")
    AlertGroup.objects.filter(title="Port scan").update(status=Status.CLOSED, disposition=Disposition.BENIGN)
    AlertGroup.objects.filter(title="100% port_x").update(last_seen_at=now - timedelta(days=2), suppressed_count=3)
    annoyed = "ärger" if connection.vendor == "postgresql" else "ÄRGER"  # SQLite ignores the case of A to Z only
    queries = [
        {}, {"status": "any"}, {"status": ["new", "closed"]}, {"severity": "low"}, {"severity": ["low", "high"]},
        {"status": "closed", "disposition": "benign"}, {"status": "any", "disposition": ["duplicate", "benign"]},
        {"assignee": "me"}, {"assignee": "none"}, {"assignee": [str(ben.pk), "me"]}, {"assignee": "9999"},
        {"tenant": device_key.device.tenant.slug}, {"tenant": "nowhere"}, {"device": str(device_key.device.pk)},
        {"status": "any", "q": "scan port"}, {"q": annoyed}, {"q": "SS"}, {"q": "100%"}, {"q": "port_"}, {"q": "_x %"},
        {"status": "any", "source": "10.0.0.0/8"}, {"status": "any", "source": "10.1.2.3"}, {"source": "2001:db8::/32"},
        {"status": "any", "destination": "192.0.2.0/24"}, {"status": "any", "address": ["192.0.2.1", "2001:DB8:0::1"]},
        {"source": "::ffff:10.1.2.3"}, {"source": "::/0"}, {"status": "any", "source": "0.0.0.0/0"},
        {"status": "any", "since": (now - timedelta(days=1)).isoformat()}, {"until": now.isoformat()},
        {"suppressed": "yes"}, {"within": "15m"}, {"within": "1d"}, {"within": "3d", "status": "any"}, {"within": "0m"},
    ]  # fmt: skip
    open_console(page, server.url)
    api = f"{server.url}/api/v1/groups?"
    everything = page.request.get(f"{api}status=any").json()["results"]
    assert len(everything) == len(groups)
    for query in queries:
        text = urlencode(query, doseq=True)
        answer = page.request.get(api + text)
        assert answer.status == 200, (text, answer.text())
        listed = {group["id"] for group in answer.json()["results"]}
        assert set(page.evaluate(MATCHES, [text, everything, analyst.pk])) == listed, text


def test_groups_leave_as_time_goes_by_and_a_critical_one_is_still_told(server, key, analyst, page):
    server.post(key, [alert("just now"), alert("older"), alert("older and bad", severity="critical")])
    last = timezone.now() - timedelta(minutes=14, seconds=30)
    AlertGroup.objects.filter(title__startswith="older").update(last_seen_at=last)
    page.clock.install()
    open_console(page, server.url)
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Last seen within").select_option("15 minutes")
    expect(page).to_have_url(f"{server.url}/alerts/?within=15m")
    page.keyboard.press("Escape")
    expect(page.locator(".filter-chip")).to_have_text("last seen within: 15 min")
    expect_titles(page, "older and bad", "older", "just now")
    expect_live(page)  # the answer sets the page's clock
    page.clock.fast_forward(40_000)
    expect_titles(page, "just now")
    expect(page.locator(".outside")).to_have_text("1 new critical group outside these filters")


def test_filters_are_saved_under_a_name_and_found_again(server, key, analyst, page):
    server.post(key, [alert("high one"), alert("low one", severity="low")])
    open_console(page, server.url, query="?severity=low")
    page.get_by_role("button", name="Saved").click()
    panel = page.locator("#view-panel")
    expect(panel).to_contain_text("Nothing saved yet.")
    panel.get_by_label("Save these filters as").fill("the <b>low</b> ones")
    panel.get_by_role("button", name="Save").click()
    saved = panel.get_by_role("button", name="the <b>low</b> ones", exact=True)
    expect(saved).to_be_visible()
    page.goto(f"{server.url}/alerts/")
    expect(rows(page)).to_have_count(2)
    page.get_by_role("button", name="Saved").click()
    saved.click()
    expect_titles(page, "low one")
    expect(page).to_have_url(f"{server.url}/alerts/?severity=low")
    page.get_by_role("button", name="Saved").click()
    panel.get_by_role("button", name="Delete the <b>low</b> ones").click()
    expect(panel).to_contain_text("Nothing saved yet.")


def test_what_passes_the_filters_is_exported(server, key, analyst, page):
    server.post(key, [alert("high one"), alert("low one", severity="low")])
    open_console(page, server.url, query="?severity=low")
    page.get_by_role("button", name="Saved").click()
    with page.expect_download() as download:
        page.locator("#view-panel").get_by_role("link", name="CSV").click()
    exported = download.value.path().read_text()
    assert "low one" in exported
    assert "high one" not in exported


def test_the_overview_leads_to_filters(server, key, analyst, page):
    server.post(key, [alert("one", source_ip="10.0.0.1"), alert("two", source_ip="10.0.0.2"), alert("three")])
    open_console(page, server.url)
    expect(page.locator("#overview")).to_be_hidden()
    page.get_by_role("button", name="Overview").click()
    expect(page.get_by_role("img", name="Timeline: 3 alerts")).to_be_visible()
    page.locator("[data-top=sources]").get_by_role("button", name="10.0.0.2").click()
    expect_titles(page, "two")
    expect(page).to_have_url(f"{server.url}/alerts/?source=10.0.0.2")
    expect(page.get_by_role("img", name="Timeline: 1 alert")).to_be_visible()
    page.locator("#overview canvas").click(position={"x": 200, "y": 60})
    expect(page.locator(".filter-chip", has_text="since")).to_be_visible()
