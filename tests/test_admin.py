"""The admin: its lists, its front page, and the pages of tenants, devices and alerts."""

import itertools
import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from alerts.models import AlertGroup, SecurityAlert, Status, SuppressionRule
from devices.models import Device, DeviceKey
from ingestcloud.overview.cards import Card
from tenants.models import Tenant
from tests.support.admin_pages import list_of, page_of, rows_shown
from tests.support.alert_rows import set_status, suppression_rule

pytestmark = pytest.mark.django_db

PLAINTEXT = re.compile(r"dvc_[\w-]{43}")
HOSTILE = {"message": "</pre><script>alert('x')</script>", "city": "Zürich"}
LISTS = [
    "tenants_tenant", "devices_device", "devices_devicekey", "devices_provisioningkey", "alerts_securityalert",
    "alerts_alertgroup", "alerts_suppressionrule", "ingest_ingestevent", "ingest_ingestbatch", "auth_user",
    "auth_group",
]  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_every_list_opens(admin_client, name, device_key, store, make_alert):
    store()
    make_alert()
    assert admin_client.get(reverse(f"admin:{name}_changelist")).status_code == 200


@pytest.mark.parametrize(
    "name", [name for name in LISTS if not name.startswith(("ingest", "alerts", "devices_devicek"))]
)
def test_every_model_that_staff_can_add_has_a_form(admin_client, name):
    assert admin_client.get(reverse(f"admin:{name}_add")).status_code == 200


def test_a_link_may_fill_in_a_form(admin_client, tenant):
    text = admin_client.get(reverse("admin:devices_device_add"), {"name": "press-07", "tenant": tenant.pk}).text
    assert 'value="press-07"' in text
    assert f'<option value="{tenant.pk}" selected>' in text


def test_every_change_and_history_page_opens(admin_client, device_key, store, make_alert):
    event, alert = store()[0], make_alert()
    device = device_key.device
    for row in (
        device.tenant,
        device,
        device_key,
        alert,
        alert.group,
        event,
        event.batch,
        User.objects.get(username="admin"),
    ):
        assert admin_client.get(page_of(row)).status_code == 200
        history = page_of(row).replace("/change/", "/history/")
        entries = admin_client.get(history, follow=True)
        assert entries.status_code == 200
        assert entries.redirect_chain[0][0].endswith(f"?object={row._meta.label_lower}-{row.pk}")


def test_the_front_page_shows_current_figures_and_alerts(admin_client, device_key, make_alert, store):
    Device.objects.update(last_seen_at=timezone.now())
    make_alert(severity="critical")
    make_alert(severity="low")
    make_alert(severity="high", status=Status.CLOSED)
    store()
    cards = {card.title: card for card in admin_client.get(reverse("admin:index")).context["cards"]}
    assert (cards["Devices offline"].value, cards["Devices offline"].detail) == ("0", "of 1")
    assert (cards["New alert groups"].value, cards["New alert groups"].state) == ("1", "bad")
    assert "Port scan" in admin_client.get(reverse("admin:index")).text
    for card in cards.values():
        assert admin_client.get(card.url).status_code == 200
    assert len(rows_shown(admin_client.get(cards["New alert groups"].url))) == 1


def test_a_card_is_bad_if_its_list_has_something_to_do(admin_client, device_key):
    def offline() -> Card:
        return next(
            c for c in admin_client.get(reverse("admin:index")).context["cards"] if c.title == "Devices offline"
        )

    assert (offline().value, offline().state, offline().detail) == ("0", "good", "of 1, 1 never seen")
    Device.objects.update(last_seen_at=timezone.now() - timedelta(minutes=6))
    assert (offline().value, offline().state) == ("1", "bad")
    assert rows_shown(admin_client.get(offline().url)) == [device_key.device_id]


def test_the_front_page_looks_for_no_batch(admin_client, store):
    """That of a tenant whose devices are silent may be far back, behind the batches of all others."""
    store()
    with CaptureQueriesContext(connection) as queries:
        cards = {card.title: card.value for card in admin_client.get(reverse("admin:index")).context["cards"]}
    assert cards["Last batch"] == "never"  # by the devices: none has sent one
    assert not [query for query in queries if "ingest_batches" in query["sql"]]
    Device.objects.update(last_seen_at=timezone.now() - timedelta(hours=2))
    cards = {card.title: card.value for card in admin_client.get(reverse("admin:index")).context["cards"]}
    assert "2\xa0hours ago" in cards["Last batch"]


def test_the_front_page_shows_only_what_the_user_may_view(staff):
    response = staff().get(reverse("admin:index"))
    assert [response.context[name] for name in ("cards", "charts", "tables")] == [[], [], []]
    assert "Newest alerts" not in response.text


# Tenants and devices


def test_tenants_and_devices_cannot_be_deleted(admin_client, device_key):
    for row in (device_key.device, device_key.device.tenant):
        assert admin_client.post(page_of(row).replace("/change/", "/delete/"), {"post": "yes"}).status_code == 403
    assert Device.objects.exists()


def test_a_tenant_asks_one_question_for_each_member(admin_client, tenant, django_assert_max_num_queries):
    """For the name that its field shows, which is Django's way."""

    def add_members(count: int) -> None:
        tenant.members.add(*(User.objects.create_user(f"member-{next(numbers)}") for _ in range(count)))

    numbers = itertools.count()
    add_members(1)
    with CaptureQueriesContext(connection) as few:
        admin_client.get(page_of(tenant))
    add_members(10)
    with django_assert_max_num_queries(len(few) + 10):
        assert "member-10" in admin_client.get(page_of(tenant)).text


def test_tenants_can_be_found_by_module(admin_client, make_tenant):
    backup, _ = make_tenant(backup_enabled=True), make_tenant(vpn_enabled=True)
    assert rows_shown(admin_client.get(list_of(Tenant), {"module": "backup"})) == [backup.pk]


def test_devices_can_be_found_by_whether_they_are_online(admin_client, tenant):
    now = timezone.now()
    seen = {"yes": now, "no": now - timedelta(hours=1), "never": None}
    devices = {
        answer: Device.objects.create(tenant=tenant, name=answer, last_seen_at=moment)
        for answer, moment in seen.items()
    }
    for answer, device in devices.items():
        assert rows_shown(admin_client.get(list_of(Device), {"online": answer})) == [device.pk]


def test_the_list_of_devices_counts_their_usable_keys(admin_client, device_key):
    DeviceKey.objects.issue(device_key.device)
    DeviceKey.objects.issue(device_key.device)[0].revoke()
    DeviceKey.objects.issue(device_key.device, timezone.now() - timedelta(days=1))
    keyless = Device.objects.create(tenant=device_key.device.tenant, name="keyless")
    shown = {row.pk: row.active_keys for row in admin_client.get(list_of(Device)).context["cl"].result_list}
    assert shown == {device_key.device_id: 2, keyless.pk: 0}


def test_a_device_cannot_be_moved_to_another_tenant(admin_client, device_key, make_tenant):
    device = device_key.device
    admin_client.post(page_of(device), {"name": "renamed", "tenant": make_tenant().pk})
    assert Device.objects.values_list("name", "tenant").get() == ("renamed", device.tenant_id)


def test_staff_see_only_the_tenants_they_are_members_of(staff, make_tenant, device_key, store, make_alert):
    event, alert, other = store()[0], make_alert(), make_tenant()
    codes = ("tenant", "device", "devicekey", "securityalert", "ingestevent", "ingestbatch")
    permissions = [f"view_{code}" for code in codes]
    outsider = staff(*permissions, tenants=(other,))
    insider = staff(*permissions, tenants=(device_key.device.tenant,))
    for row in (device_key.device.tenant, device_key.device, device_key, alert, event, event.batch):
        assert row.pk not in rows_shown(outsider.get(list_of(row))) or row.pk == other.pk
        assert outsider.get(page_of(row)).status_code == 302
        assert rows_shown(insider.get(list_of(row))) == [row.pk]
        assert insider.get(page_of(row)).status_code == 200


def test_staff_cannot_add_a_device_to_a_tenant_they_are_not_members_of(staff, make_tenant):
    mine, other = make_tenant(), make_tenant()
    client = staff("add_device", "view_device", "view_tenant", tenants=(mine,))
    client.post(reverse("admin:devices_device_add"), {"tenant": other.pk, "name": "theirs"})
    client.post(reverse("admin:devices_device_add"), {"tenant": mine.pk, "name": "ours"})
    assert [device.name for device in Device.objects.all()] == ["ours"]


def test_staff_see_a_tenant_that_they_add(staff):
    client = staff("add_tenant", "view_tenant")
    client.post(reverse("admin:tenants_tenant_add"), {"name": "New", "slug": "new"})
    assert rows_shown(client.get(list_of(Tenant))) == [Tenant.objects.get().pk]


# Alerts


def test_an_alert_and_its_group_are_read_only(admin_client, make_alert):
    alert = make_alert()
    for row in (alert, alert.group):
        assert admin_client.post(page_of(row), {"status": "closed", "title": "Nothing"}).status_code == 403
        assert admin_client.post(page_of(row).replace("/change/", "/delete/"), {"post": "yes"}).status_code == 403
        assert admin_client.get(list_of(row).rstrip("/") + "/add/").status_code == 403
    assert page_of(alert.group) in admin_client.get(page_of(alert)).text


def test_groups_are_read_only_and_lead_to_the_console(admin_client, make_alert):
    group = make_alert().group
    set_status(AlertGroup.objects.all(), Status.CLOSED)
    page = admin_client.get(page_of(group)).text
    assert f'href="/alerts/?open={group.pk}"' in page
    assert "triager: status “new” → “closed”" in page
    for action in ("acknowledge", "close", "reopen", "delete_selected"):
        admin_client.post(list_of(AlertGroup), {"action": action, "_selected_action": [group.pk]})
    assert admin_client.post(page_of(group), {"status": "new"}).status_code == 403
    assert AlertGroup.objects.get().status == Status.CLOSED


def test_the_page_of_an_alert_links_to_its_batch(admin_client, make_alert):
    alert = make_alert()
    link = f'href="/admin/ingest/ingestbatch/{alert.batch_id}/change/">batch {alert.batch_id}</a>'
    assert link in admin_client.get(page_of(alert)).text


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        ({"source_ip": "192.0.2.1", "destination_ip": "192.0.2.2"}, "192.0.2.1 →<br>192.0.2.2</span>"),
        ({"source_ip": "192.0.2.1"}, ">from 192.0.2.1<"),
        ({"destination_ip": "192.0.2.2"}, ">to 192.0.2.2<"),
        ({}, ">-<"),
    ],
)
def test_a_list_of_alerts_shows_the_addresses_that_there_are(admin_client, make_alert, ends, shown):
    make_alert(**ends)
    cell = re.search(r'<td class="field-route.*?</td>', admin_client.get(list_of(SecurityAlert)).text, re.DOTALL)[0]
    assert shown in cell


def test_a_page_names_its_object_as_it_is_written(admin_client, device_key):
    title = re.search(r"<h1.*?</h1>", admin_client.get(page_of(device_key)).text, re.DOTALL)[0]
    assert [part.strip() for part in re.findall(r">([^<>]+)</a>", title)] == ["Fleet", "Device keys", str(device_key)]


def test_alerts_and_groups_can_be_found_by_title_address_severity_and_status(admin_client, make_alert):
    found = make_alert(title="Brute force", source_ip="192.0.2.7", severity="critical", status=Status.CLOSED)
    make_alert()
    for query in ({"q": "brute"}, {"q": "192.0.2"}, {"severity__exact": "critical"}):
        assert rows_shown(admin_client.get(list_of(SecurityAlert), query)) == [found.pk]
        assert rows_shown(admin_client.get(list_of(AlertGroup), query)) == [found.group.pk]
    for query in ({"group__status__exact": "closed"}, {"group": found.group.pk}):
        assert rows_shown(admin_client.get(list_of(SecurityAlert), query)) == [found.pk]
    assert rows_shown(admin_client.get(list_of(AlertGroup), {"status__exact": "closed"})) == [found.group.pk]


def test_the_page_of_a_rule_says_what_it_suppresses_and_leads_to_it(admin_client, make_alert, device_key):
    device = device_key.device
    old = make_alert()
    for _ in range(2):
        make_alert()
    now = timezone.now()
    rule = suppression_rule(
        device.tenant, now, title="Scan", title_match="contains", source="10.0.0.0/8", device=device
    )
    ended = suppression_rule(device.tenant, now - timedelta(days=2))
    SecurityAlert.objects.filter(pk=old.pk).update(suppressed_by=rule)
    page = admin_client.get(page_of(rule))
    assert f"contains “Scan” from 10.0.0.0/8 by the device {device.name}, up to high" in page.text
    assert rows_shown(admin_client.get(re.search(r'href="([^"]+\?suppressed_by=\d+)"', page.text)[1])) == [old.pk]
    assert page_of(rule) in admin_client.get(page_of(old)).text
    assert rows_shown(admin_client.get(list_of(SuppressionRule), {"state": "ended"})) == [ended.pk]
    assert rows_shown(admin_client.get(list_of(SuppressionRule), {"state": "in_force"})) == [rule.pk]
    assert admin_client.post(page_of(rule), {"reason": "x"}).status_code == 403


def test_the_page_of_a_group_leads_to_its_alerts_however_old(admin_client, make_alert, monkeypatch):
    monkeypatch.setattr("tenants.admin.bounded.MAX_SEARCHED_ROWS", 2)
    old = make_alert()
    for _ in range(5):
        make_alert()
    link = re.search(r'href="([^"]+\?group=\d+)"', admin_client.get(page_of(old.group)).text)[1]
    assert rows_shown(admin_client.get(link)) == [old.pk]
    for nonsense in ("x", "9" * 30, "-1"):
        assert rows_shown(admin_client.get(list_of(SecurityAlert), {"group": nonsense})) == []
