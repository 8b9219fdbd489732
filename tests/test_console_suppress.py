"""Suppressing alerts on the console: what it would hide, what it hides, who did it, and how it ends."""

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from alerts.models import AlertGroup, Disposition, SecurityAlert, Status, SuppressionRule
from tenants.models import Role
from tests.support.alert_rows import suppression_rule
from tests.support.browser import DESK, PHONE, expect_fits, expect_titles, focus, open_console, row, rows
from tests.support.events import alert

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]

NOISE = {"source_ip": "10.0.0.7", "destination_ip": "10.0.0.1", "severity": "medium"}


@pytest.fixture
def console(server, key, analyst, page) -> Page:
    for number in range(3):
        server.post(key, [alert("Port scan", description=f"host {number}", **NOISE)])
    server.post(key, [alert("Disk full")])
    open_console(page, server.url)
    expect_titles(page, "Disk full", "Port scan")
    return page


def fill(page: Page, name: str, value: str) -> None:
    page.locator(f"#suppress [name={name}]").fill(value)


def save(page: Page, reason: str = "Our own scanner") -> None:
    fill(page, "reason", reason)
    page.locator("#suppress").get_by_role("button", name="Suppress").click()
    expect(page.locator("#suppress")).to_be_hidden()


def open_rules(page: Page):
    page.get_by_role("button", name="Suppressions").click()
    return page.locator("#rules-panel")


def test_a_group_is_suppressed_by_key_and_its_next_alerts_do_not_appear(server, key, console):
    focus(console, "Port scan")
    console.keyboard.press("s")
    expect(console.locator("#suppress .preview")).to_contain_text("hidden 3 in 1 group")
    save(console)
    expect_titles(console, "Disk full")
    group = AlertGroup.objects.get(title="Port scan")
    assert (group.status, group.disposition) == (Status.CLOSED, Disposition.BENIGN)
    rule = SuppressionRule.objects.get()
    assert (rule.source, rule.destination, rule.worst_severity) == ("10.0.0.7/32", "10.0.0.1/32", "medium")
    assert timedelta(days=6) < rule.ends_at - timezone.now() < timedelta(days=7)

    server.post(key, [alert("Port scan", **NOISE), alert("Disk full")])
    expect(row(console, "Disk full").locator(".count")).to_contain_text("2")
    expect_titles(console, "Disk full")
    server.post(key, [alert("Port scan", **NOISE | {"severity": "high"})])
    console.get_by_role("button", name="1 new").click()
    expect_titles(console, "Port scan", "Disk full")
    assert SecurityAlert.objects.filter(suppressed_by=rule).count() == 1


def test_the_preview_follows_what_is_typed_and_bad_input_is_told(server, key, console):
    server.post(key, [alert("Port scan of hosts", **NOISE)])
    focus(console, "Port scan")
    console.keyboard.press("s")
    preview = console.locator("#suppress .preview")
    expect(preview).to_contain_text("hidden 3 in 1 group")
    console.locator("#suppress [name=title_match]").select_option("contains")
    expect(preview).to_contain_text("hidden 4 in 2 groups")
    fill(console, "source", "10.9.0.0/16")
    expect(preview).to_contain_text("hidden none")
    fill(console, "source", "10.9.0.0/99")
    expect(preview).to_contain_text("source: This is not an address or a network.")
    fill(console, "reason", "x")
    console.locator("#suppress").get_by_role("button", name="Suppress").click()
    expect(console.locator("#suppress .problem")).to_contain_text("This is not an address or a network.")
    assert not SuppressionRule.objects.exists()
    fill(console, "source", "10.0.0.0/8")
    console.get_by_role("checkbox", name="Close this group").uncheck()
    save(console)
    assert SuppressionRule.objects.get().source == "10.0.0.0/8"
    expect(row(console, "Port scan")).to_be_visible()


def test_a_group_without_addresses_is_suppressed_by_its_device(console, device_key):
    focus(console, "Disk full")
    console.keyboard.press("s")
    expect(console.locator("#suppress .device-name")).to_have_text(device_key.device.name)
    save(console)
    expect_titles(console, "Port scan")
    assert SuppressionRule.objects.get().device_id == device_key.device_id


def test_a_rule_shows_what_it_hides_and_who_made_it_and_is_ended(server, key, console, tenant):
    suppression_rule(tenant, timezone.now(), title="Port scan", reason="Our own scanner")
    server.post(key, [alert("Port scan", description="from the lab", **NOISE)])
    panel = open_rules(console)
    expect(panel).to_contain_text("“Port scan”, up to high")
    expect(panel).to_contain_text("Our own scanner")
    expect(panel).to_contain_text("by erin")
    expect(panel).to_contain_text("ends in 23 h")
    panel.get_by_text("1 alert suppressed").click()
    expect(panel).to_contain_text("from the lab")
    expect(console.locator("#rules-number")).to_have_text("1")
    panel.get_by_role("button", name="End now").click()
    expect(panel.get_by_text("None. To suppress alerts")).to_be_visible()
    panel.get_by_text("Ended", exact=True).click()
    expect(panel).to_contain_text("ended by ada")
    console.keyboard.press("Escape")
    server.post(key, [alert("Port scan", **NOISE)])
    expect(row(console, "Port scan").locator(".count")).to_contain_text("4")


def test_a_rule_is_renewed_before_it_ends(console, tenant):
    now = timezone.now()
    end = now + timedelta(hours=5, minutes=1)
    made = suppression_rule(tenant, now - timedelta(days=6), title="Port scan", title_match="contains", ends_at=end)
    console.reload()
    expect(console.locator("#ending")).to_contain_text("A suppression ends in 5 h: Scanner of ours (erin)")
    console.get_by_role("button", name="Show suppressions").click()
    console.get_by_role("button", name="Renew").click()
    save(console, "Still ours")
    renewed = SuppressionRule.objects.exclude(pk=made.pk).get()
    assert (renewed.title, renewed.title_match, renewed.worst_severity) == ("Port scan", "contains", "high")
    assert renewed.ends_at - timezone.now() > timedelta(days=6)
    console.locator("#ending").get_by_role("button", name="Dismiss").click()
    expect(console.locator("#ending")).to_be_hidden()


def test_suppressed_groups_are_found_by_a_filter(server, key, console, tenant):
    suppression_rule(tenant, timezone.now(), title="Hidden")
    server.post(key, [alert("Hidden", severity="low"), alert("Disk full")])
    expect(row(console, "Disk full").locator(".count")).to_contain_text("2")
    console.get_by_role("button", name="Filters").click()
    console.get_by_role("checkbox", name="With suppressed alerts").check()
    expect_titles(console, "Hidden")
    console.keyboard.press("Escape")
    rows(console).first.click()
    expect(console.locator("#detail")).to_contain_text("1 suppressed")


def test_the_dialog_and_the_rules_fit_at_both_widths(server, key, console, tenant):
    for number in range(3):
        suppression_rule(tenant, timezone.now(), title=f"Noise {number}", reason="Scanner of the site office, weekly")
    server.post(key, [alert("Noise 1", description="from the lab", severity="low")])
    for viewport in (DESK, PHONE):
        console.set_viewport_size(viewport)
        focus(console, "Port scan")
        console.keyboard.press("s")
        expect(console.locator("#suppress .preview")).to_contain_text("hidden 3")
        expect_fits(console)
        console.keyboard.press("Escape")
        panel = open_rules(console)
        expect(panel).to_contain_text("1 alert suppressed")
        expect_fits(console)
        console.keyboard.press("Escape")


def test_viewers_see_the_rules_and_cannot_change_them(server, key, make_analyst, page, tenant):
    make_analyst("vic", Role.VIEWER)
    suppression_rule(tenant, timezone.now(), title="Port scan")
    server.post(key, [alert("Disk full")])
    open_console(page, server.url, "vic")
    panel = open_rules(page)
    expect(panel).to_contain_text("“Port scan”, up to high")
    expect(panel.get_by_role("button", name="End now")).to_have_count(0)
    page.keyboard.press("Escape")
    focus(page, "Disk full")
    page.keyboard.press("s")
    expect(page.locator("#suppress")).to_be_hidden()
