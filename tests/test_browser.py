"""Pages other than the console in a real Chromium, against a running server."""

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone
from playwright.sync_api import expect

from alerts.models import SecurityAlert
from devices.models import Device
from insights.models import COUNTS, TenantHour
from tests.support.assertions import assert_problem
from tests.support.browser import DESK, PHONE, expect_fits, log_in
from tests.support.events import alert, log

pytestmark = pytest.mark.django_db(transaction=True)


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
    Device.objects.update(name="a device with a long name " * 6)
    page.goto(f"{server.url}/admin/ingest/ingestevent/")
    received = page.locator("td.field-received").first.bounding_box()
    assert received["x"] + received["width"] <= 1280
    page.goto(f"{server.url}/admin/auth/user/{root.pk}/change/")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


DRAWN = """canvas => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return new Uint32Array(pixels.buffer).some((pixel) => pixel !== 0);
}"""


@pytest.mark.parametrize(("scheme", "viewport"), [("light", DESK), ("dark", PHONE)])
def test_the_charts_of_the_overview_are_drawn_and_fit(server, tenant, open_page, scheme, viewport):
    get_user_model().objects.create_superuser("root", password="a good password")
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    TenantHour.objects.create(tenant=tenant, start=hour, **(dict.fromkeys(COUNTS, 0) | {"log": 5, "events": 5}))
    page = open_page(viewport, color_scheme=scheme)
    log_in(page, server.url, "root", "/admin/")
    page.get_by_role("link", name="7 days").click()
    page.wait_for_url("**period=7d")
    charts = page.locator("#charts canvas")
    expect(charts).to_have_count(3)
    for chart in charts.all():
        assert chart.evaluate(DRAWN)
    expect_fits(page)
