"""Sound, desktop notifications and the wall screen, all off until somebody asks for them."""

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import PHONE, expect_fits, expect_live, expect_titles, open_console, row
from tests.support.events import alert

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]

# A machine without loudspeakers and desktop: what the page asks for is recorded, and done.
RECORD = """
  window.tones = [];
  const start = OscillatorNode.prototype.start;
  OscillatorNode.prototype.start = function (...when) {
    window.tones.push(this.frequency.value);
    return start.apply(this, when);
  };
  window.notified = [];
  document.hasFocus = () => window.looks ?? true;
  window.Notification = class extends EventTarget {
    static permission = "granted";
    static requestPermission = async () => "granted";
    constructor(title, options) {
      super();
      window.notified.push({ title, ...options });
      window.lastNotification = this;
    }
    close() {}
  };
"""


@pytest.fixture
def console(server, key, analyst, page) -> Page:
    page.add_init_script(RECORD)
    server.post(key, [alert("before", severity="critical")])
    open_console(page, server.url)
    expect_titles(page, "before")
    return page


def choose(page: Page, name: str, severity: str) -> None:
    page.get_by_role("button", name="Alarm").click()
    page.locator(f"#alarm-panel [name={name}]").select_option(severity)
    page.keyboard.press("Escape")


def tones(page: Page) -> list[float]:
    page.wait_for_timeout(600)  # longer than alerts are gathered
    return page.evaluate("window.tones.splice(0)")


def test_nothing_makes_a_sound_before_it_is_asked_for(server, key, console):
    server.post(key, [alert("break-in", severity="critical")])
    expect(row(console, "break-in")).to_be_visible()
    assert tones(console) == []
    assert console.evaluate("window.notified") == []


def test_the_sound_is_for_what_is_new_or_worse_from_a_severity_up(server, key, console):
    choose(console, "sound", "high")
    expect(console.locator("#alarm-badge")).to_have_text("on")
    server.post(key, [alert("scan", severity="medium")])
    expect(row(console, "scan")).to_be_visible()
    assert tones(console) == []
    server.post(key, [alert("break-in", severity="high")])
    expect(row(console, "break-in")).to_be_visible()
    assert tones(console) == [660, 880]
    server.post(key, [alert("break-in", severity="high", description="a repeat")])
    expect(row(console, "break-in").locator(".count")).to_contain_text("2")
    assert tones(console) == []
    server.post(key, [alert("scan", severity="critical"), alert("third", severity="high")])
    expect(row(console, "third")).to_be_visible()
    assert tones(console) == [880, 660, 880]  # once for both


def test_what_a_person_does_makes_no_sound(server, console):
    choose(console, "sound", "info")
    row(console, "before").focus()
    console.keyboard.press("a")
    expect(row(console, "before")).to_contain_text("Acknowledged")
    console.keyboard.press("u")
    expect(row(console, "before")).to_contain_text("New")
    assert tones(console) == []


def test_a_choice_is_kept_and_filters_do_not_silence_it(server, key, console):
    choose(console, "sound", "critical")
    console.locator("[data-filter=severity][data-value=low]").click()
    console.reload()
    expect_live(console)
    expect(console.locator("#alarm-badge")).to_have_text("!")  # no sound before a click
    console.locator("h1").click()
    expect(console.locator("#alarm-badge")).to_have_text("on")
    server.post(key, [alert("break-in", severity="critical")])
    expect(console.locator(".outside")).to_contain_text("2 new critical groups")
    assert tones(console) == [880, 660, 880]


def test_a_notification_comes_while_the_reader_looks_elsewhere_and_opens_the_group(server, key, console):
    choose(console, "notification", "high")
    server.post(key, [alert("seen", severity="critical")])
    expect(row(console, "seen")).to_be_visible()
    console.wait_for_timeout(600)  # longer than alerts are gathered
    console.evaluate("window.looks = false")
    server.post(key, [alert("<b>break-in</b>", severity="critical", source_ip="10.0.0.7"), alert("x", severity="high")])
    expect(row(console, "x")).to_be_visible()
    console.wait_for_timeout(600)
    [notification] = console.evaluate("window.notified")
    assert notification["title"] == "critical: <b>break-in</b>"
    assert notification["body"].startswith("from 10.0.0.7 · ")
    assert notification["body"].endswith("and 1 more group")
    console.evaluate("window.lastNotification.dispatchEvent(new Event('click'))")
    expect(console.locator("#detail-title")).to_have_text("<b>break-in</b>")


def test_a_wall_screen_shows_numbers_and_the_list_without_controls(server, key, console):
    console.get_by_role("button", name="Wall").click()
    wall = console.locator("#wall")
    expect(wall.locator("[data-severity=critical] .wall-number")).to_have_text("1")
    expect(console.locator("#toolbar")).to_be_hidden()
    expect(console.locator("#connection .words")).to_have_text("Live")
    server.post(key, [alert("break-in", severity="critical")])
    expect(row(console, "break-in")).to_be_visible()
    expect(wall.locator("[data-severity=critical] .wall-number")).to_have_text("2")
    console.reload()
    expect(wall).to_be_visible()
    console.set_viewport_size(PHONE)
    expect_fits(console)
    console.keyboard.press("Escape")
    expect(wall).to_be_hidden()
    expect(console.locator("#toolbar")).to_be_visible()
