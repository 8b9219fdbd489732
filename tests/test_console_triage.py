"""What analysts do on the console, in one browser and in two."""

import pytest
from django.contrib.auth import get_user_model
from playwright.sync_api import Page, Route, expect

from alerts.models import AlertGroup, Disposition, GroupChange, Status
from tenants.models import Membership, Role
from tests.support.browser import PHONE, expect_titles, focus, open_console, row, rows
from tests.support.events import alert

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def console(server, key, analyst, page) -> Page:
    """A console with three groups; the topmost is "first"."""
    for title in ("third", "second", "first"):
        server.post(key, [alert(title)])
    open_console(page, server.url)
    expect_titles(page, "first", "second", "third")
    return page


def group(title: str) -> AlertGroup:
    return AlertGroup.objects.get(title=title)


def toast(page: Page, words: str) -> None:
    expect(page.locator("#toasts")).to_contain_text(words)


def close(page: Page, disposition: str, note: str = "") -> None:
    """In the dialog that is open."""
    page.get_by_role("radio", name=disposition).check()
    page.locator("#close textarea").fill(note)
    page.locator("#close").get_by_role("button", name="Close").click()


def test_one_group_is_acknowledged_started_and_closed_by_keys(console):
    focus(console, "second")
    console.keyboard.press("a")
    toast(console, "Acknowledged: “second”")
    expect(row(console, "second")).to_contain_text("Acknowledged by ada")
    console.keyboard.press("i")
    expect(row(console, "second")).to_contain_text("In progress")
    console.keyboard.press("c")
    console.keyboard.press("ArrowDown")  # from true positive to false positive
    console.keyboard.press("Enter")
    toast(console, "Closed as false positive: “second”")
    expect(row(console, "second")).to_have_count(0)
    expect(row(console, "third")).to_be_focused()
    assert (group("second").status, group("second").disposition) == (Status.CLOSED, Disposition.FALSE_POSITIVE)


def test_many_groups_are_changed_at_once_and_so_is_the_note(console):
    focus(console, "first")
    console.keyboard.press("x")
    console.keyboard.press("Shift+J")
    expect(console.locator(".bulk-count")).to_have_text("2 selected")
    console.keyboard.press("n")
    console.locator("#note textarea").fill("Asked the plant.")
    console.locator("#note").get_by_role("button", name="Add").click()
    toast(console, "Noted: 2 groups")
    console.keyboard.press("m")
    toast(console, "Assigned to ada: 2 groups")
    console.keyboard.press("c")
    close(console, "Benign")
    toast(console, "Closed as benign: 2 groups")
    expect_titles(console, "third")
    expect(console.locator("#bulk")).to_be_hidden()
    notes = GroupChange.objects.filter(field="note")
    assert {(note.group.title, note.after) for note in notes} == {(t, "Asked the plant.") for t in ("first", "second")}
    assert len({note.operation for note in notes}) == 1
    assert group("third").status == Status.NEW


def test_groups_are_selected_and_changed_with_the_mouse(console):
    for title in ("first", "third"):
        row(console, title).locator(".row-check").click()
    console.locator("#bulk").get_by_role("button", name="Acknowledge").click()
    toast(console, "Acknowledged: 2 groups")
    row(console, "second").click()
    console.locator("#detail").get_by_role("button", name="In progress").click()
    expect(console.locator(".detail-state")).to_contain_text("In progress by ada")
    assert [group(title).status for title in ("first", "second", "third")] == [
        "acknowledged",
        "in_progress",
        "acknowledged",
    ]


def test_groups_are_changed_on_a_phone(server, key, analyst, open_page):
    server.post(key, [alert("first")])
    page = open_page(PHONE, has_touch=True)
    open_console(page, server.url)
    row(page, "first").tap()
    page.locator("#detail").get_by_role("button", name="Close…").tap()
    close(page, "True positive", "Real.")
    toast(page, "Closed as true positive: “first”")
    page.locator("#detail [data-close]").tap()
    expect(rows(page)).to_have_count(0)
    assert group("first").disposition == Disposition.TRUE_POSITIVE


def test_a_group_is_assigned_to_a_colleague(console, make_analyst):
    make_analyst("ben")
    make_analyst("vera", Role.VIEWER)
    focus(console, "first")
    console.keyboard.press("e")
    choice = console.locator("#assign select")
    expect(choice).to_be_visible()
    assert choice.locator("option").all_inner_texts() == ["Nobody", "ada", "ben"]
    choice.select_option("ben")
    console.locator("#assign").get_by_role("button", name="Assign").click()
    expect(row(console, "first").locator(".row-assignee")).to_have_text("ben")
    assert group("first").assignee_name == "ben"


def test_what_was_done_is_undone(console):
    focus(console, "first")
    console.keyboard.press("c")
    close(console, "Duplicate")
    expect(row(console, "first")).to_have_count(0)
    console.keyboard.press("u")
    toast(console, "Undone: Closed as duplicate: “first”")
    expect(row(console, "first")).to_contain_text("New")
    console.locator("#groups").press("u")
    toast(console, "There is nothing to undo.")
    assert (group("first").status, group("first").disposition) == (Status.NEW, "")


def test_a_closed_group_is_found_and_reopened(console):
    focus(console, "first")
    console.keyboard.press("c")
    close(console, "Benign")
    console.locator("[data-filter=status][data-value=closed]").click()
    expect_titles(console, "first")
    row(console, "first").click()
    console.locator("#detail").get_by_role("button", name="Reopen").click()
    expect(console.locator(".detail-state")).to_contain_text("New")
    assert group("first").status == Status.NEW


def test_a_slow_answer_about_a_group_does_not_hide_what_was_done_meanwhile(console):
    held = []
    console.route(f"**/api/v1/groups/{group('first').pk}", lambda route: held.append((route, route.fetch())))
    row(console, "first").click()
    for _ in range(200):
        console.wait_for_timeout(50)
        if held:
            break
    state = console.locator(".detail-state")
    expect(state).to_contain_text("New")
    console.locator("#detail").get_by_role("button", name="Acknowledge").click()
    toast(console, "Acknowledged: “first”")
    [(route, answer)] = held
    route.fulfill(response=answer)
    expect(console.locator("#detail .detail-body")).to_contain_text("History")
    expect(state).to_contain_text("Acknowledged")


def test_a_colleague_sees_it_at_once(console, server, open_page, make_analyst):
    make_analyst("ben")
    theirs = open_page()
    open_console(theirs, server.url, "ben")
    focus(console, "first")
    console.keyboard.press("a")
    expect(row(theirs, "first")).to_contain_text("Acknowledged by ada")
    console.keyboard.press("c")
    close(console, "Benign")
    expect(row(theirs, "first")).to_have_count(0)


def test_what_somebody_works_with_stays_when_a_colleague_closes_it(console, server, open_page, make_analyst):
    make_analyst("ben")
    theirs = open_page()
    open_console(theirs, server.url, "ben")
    focus(theirs, "first")
    theirs.keyboard.press("x")
    focus(console, "first")
    console.keyboard.press("c")
    close(console, "Benign")
    expect(row(theirs, "first")).to_contain_text("Closed benign by ada")
    expect(row(theirs, "first")).to_be_focused()
    expect(theirs.locator(".bulk-count")).to_have_text("1 selected")


def test_a_change_on_a_stale_version_is_asked_for_again(console, server, open_page, make_analyst):
    """A colleague is faster while the dialog is open. Nothing of theirs is lost unless the analyst says so."""
    make_analyst("ben")
    theirs = open_page()
    open_console(theirs, server.url, "ben")
    focus(console, "first")
    console.keyboard.press("c")
    focus(theirs, "first")
    theirs.keyboard.press("c")
    close(theirs, "True positive", "They are in.")
    expect(row(theirs, "first")).to_have_count(0)

    close(console, "False positive")
    question = console.locator("#stale")
    expect(question).to_contain_text("first: closed as true positive by ben")
    question.get_by_role("button", name="Leave it").click()
    assert group("first").disposition == Disposition.TRUE_POSITIVE

    focus(console, "second")
    console.keyboard.press("n")
    focus(theirs, "second")
    theirs.keyboard.press("a")
    toast(theirs, "Acknowledged")
    console.locator("#note textarea").fill("Mine.")
    console.locator("#note").get_by_role("button", name="Add").click()
    question.get_by_role("button", name="Apply anyway").click()
    toast(console, "Noted: “second”")
    assert set(GroupChange.objects.filter(group=group("second")).values_list("field", "user_name")) == {
        ("status", "ben"),
        ("note", "ada"),
    }


def test_a_lost_answer_is_asked_for_again_with_the_same_operation(console):
    lost = []

    def lose_the_first(route: Route) -> None:
        if lost:
            return route.continue_()
        lost.append(route.fetch())  # the server has done it
        route.abort()

    console.route("**/api/v1/triage", lose_the_first)
    focus(console, "first")
    console.keyboard.press("a")
    expect(row(console, "first")).to_have_attribute("aria-busy", "true")
    toast(console, "Acknowledged: “first”")
    assert lost[0].status == 200
    assert GroupChange.objects.count() == 1


def test_a_server_that_does_not_answer_leaves_the_choice_to_try_again(console, uplink, server):
    console.clock.install()
    console.route("**/api/v1/triage", lambda route: route.abort())
    focus(console, "first")
    console.keyboard.press("a")
    for _ in range(5):
        console.clock.run_for(8_000)
    toast(console, "It is not known whether your change was made.")
    expect(row(console, "first")).to_contain_text("New")
    console.unroute("**/api/v1/triage")
    console.get_by_role("button", name="Try again").click()
    toast(console, "Acknowledged: “first”")


def test_a_viewer_sees_everything_and_changes_nothing(server, key, make_analyst, page):
    make_analyst("vera", Role.VIEWER)
    server.post(key, [alert("first", description="What happened.")])
    open_console(page, server.url, "vera")
    row(page, "first").click()
    expect(page.locator("#detail")).to_contain_text("What happened.")
    expect(page.locator("[data-command], .row-check")).to_have_count(0)
    for pressed in "aicemnru":
        page.keyboard.press(pressed)
    expect(page.locator("dialog[open]")).to_have_count(0)
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_contain_text("Next group")
    expect(page.locator("#keys")).not_to_contain_text("Acknowledge")
    assert group("first").status == Status.NEW


def test_a_viewer_of_one_tenant_changes_only_the_other(server, key, analyst, page, make_tenant, make_key):
    watched = make_tenant(name="Watched")
    _, their_key = make_key(watched)
    Membership.objects.create(user=get_user_model().objects.get(username="ada"), tenant=watched, role=Role.VIEWER)
    server.post(key, [alert("ours")])
    server.post(their_key, [alert("watched")])
    open_console(page, server.url)
    expect(row(page, "watched")).to_contain_text("Watched")
    focus(page, "watched")
    page.keyboard.press("a")
    toast(page, "You may look at these groups, but not change them.")
    for title in ("watched", "ours"):
        row(page, title).locator(".row-check").click()
    page.keyboard.press("a")
    toast(page, "Acknowledged: “ours”")
    assert (group("ours").status, group("watched").status) == (Status.ACKNOWLEDGED, Status.NEW)
