"""The staff's pages."""

import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from alerts.models import SecurityAlert
from devices import admin_tools
from devices.models import Device, DeviceKey, Tenant, key_digest
from ingest.models import IngestBatch, IngestEvent

pytestmark = pytest.mark.django_db

PLAINTEXT = re.compile(r"dvc_[\w-]{43}")
HOSTILE = {"message": "</pre><script>alert('x')</script>", "city": "Zürich"}
LISTS = [
    "devices_tenant", "devices_device", "devices_devicekey", "alerts_securityalert",
    "ingest_ingestevent", "ingest_ingestbatch", "auth_user", "auth_group",
]  # fmt: skip


@pytest.fixture
def admin_user(db) -> User:
    """pytest-django's own, but for the password: hashing one takes longer than most of these tests."""
    return User.objects.create_superuser("admin")


@pytest.fixture
def staff(db):
    """Logs in a member of staff with the permissions named, and no other."""

    def make(*permissions: str, tenants: tuple[Tenant, ...] = ()) -> Client:
        user = User.objects.create_user(f"staff-{User.objects.count()}", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        user.tenants.set(tenants)
        client = Client()
        client.force_login(user)
        return client

    return make


@pytest.fixture
def store(device_key):
    """Stores events of one batch as they lie in the database."""

    def store(count: int = 1, **fields) -> list[IngestEvent]:
        owner = {"tenant_id": device_key.device.tenant_id, "device_id": device_key.device_id}
        now = fields.pop("received_at", timezone.now())
        digest = IngestBatch.objects.count().to_bytes(32)
        batch = IngestBatch.objects.create(
            digest=digest, event_count=count, alert_count=0, byte_count=200 * count, received_at=now, **owner
        )
        values = owner | {"batch": batch, "kind": "log", "data": {"level": "info"}, "timestamp": now} | fields
        return IngestEvent.objects.bulk_create(IngestEvent(received_at=now, **values) for _ in range(count))

    return store


@pytest.fixture
def make_alert(device_key):
    def make(**fields) -> SecurityAlert:
        now = timezone.now()
        fields = {"title": "Port scan", "severity": "high", "tenant": device_key.device.tenant} | fields
        return SecurityAlert.objects.create(
            device=device_key.device, batch_id=1, timestamp=now, received_at=now, **fields
        )

    return make


def issue_url(device: Device) -> str:
    return reverse("admin:devices_device_issue_key", args=[device.pk])


def key_url(key: DeviceKey, verb: str) -> str:
    return reverse(f"admin:devices_devicekey_{verb}", args=[key.pk])


def page_of(row) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def list_of(model) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def rows_shown(response) -> list[int]:
    return [row.pk for row in response.context["cl"].result_list]


@pytest.mark.parametrize("name", LISTS)
def test_every_list_opens(admin_client, name, device_key, store, make_alert):
    store()
    make_alert()
    assert admin_client.get(reverse(f"admin:{name}_changelist")).status_code == 200


@pytest.mark.parametrize(
    "name", [name for name in LISTS if not name.startswith(("ingest", "alerts", "devices_devicek"))]
)
def test_what_is_ours_to_make_has_a_form(admin_client, name):
    assert admin_client.get(reverse(f"admin:{name}_add")).status_code == 200


def test_every_page_of_one_object_opens(admin_client, device_key, store, make_alert):
    event = store()[0]
    device = device_key.device
    for row in (
        device.tenant,
        device,
        device_key,
        make_alert(),
        event,
        event.batch,
        User.objects.get(username="admin"),
    ):
        assert admin_client.get(page_of(row)).status_code == 200
        history = page_of(row).replace("/change/", "/history/")
        assert admin_client.get(history).status_code == 200


def test_the_front_page_shows_what_is_going_on(admin_client, device_key, make_alert, store):
    Device.objects.update(last_seen_at=timezone.now())
    make_alert(severity="critical")
    make_alert(severity="low")
    make_alert(severity="high", status="resolved")
    store()
    figures = {figure.title: figure for figure in admin_client.get(reverse("admin:index")).context["figures"]}
    assert figures["Devices online"].value == "1 of 1"
    assert figures["Open alerts, high or critical"].value == "1"
    assert "Port scan" in admin_client.get(reverse("admin:index")).text
    for figure in figures.values():
        assert admin_client.get(figure.url).status_code == 200
    assert len(rows_shown(admin_client.get(figures["Open alerts, high or critical"].url))) == 1


def test_the_front_page_shows_only_what_one_may_look_at(staff):
    response = staff().get(reverse("admin:index"))
    assert response.context["figures"] == []
    assert "Newest alerts" not in response.text


# Device keys


def test_a_plaintext_is_in_the_answer_to_the_post_and_nowhere_afterwards(admin_client, tenant):
    device = Device.objects.create(tenant=tenant, name="press")
    assert not PLAINTEXT.search(admin_client.get(issue_url(device)).text)
    response = admin_client.post(issue_url(device))
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]

    plaintext = PLAINTEXT.search(response.text)[0]
    key = DeviceKey.objects.get()
    assert key.digest == key_digest(plaintext)
    assert key.device == device

    assert plaintext not in str(response.cookies)
    assert plaintext not in str(dict(admin_client.session))
    for log in LogEntry.objects.all():
        assert plaintext not in f"{log.object_repr} {log.change_message}"
    for address in (page_of(device), page_of(key), issue_url(device), reverse("admin:index")):
        assert plaintext not in admin_client.get(address).text


def test_the_key_comes_with_a_command_that_sends_a_first_event(admin_client, device_key):
    response = admin_client.post(issue_url(device_key.device))
    assert "curl -i http://testserver/v1/ingest" in response.text


def test_a_key_may_be_given_an_end(admin_client, tenant):
    device = Device.objects.create(tenant=tenant, name="press")
    admin_client.post(issue_url(device), {"expires_at": "2100-01-01T12:00"})
    assert DeviceKey.objects.get().expires_at.isoformat() == "2100-01-01T12:00:00+00:00"


def test_a_key_that_has_expired_already_is_not_issued(admin_client, tenant):
    device = Device.objects.create(tenant=tenant, name="press")
    response = admin_client.post(issue_url(device), {"expires_at": "2001-01-01T12:00"})
    assert "Choose a time to come" in response.text
    assert not DeviceKey.objects.exists()


def test_who_did_what_to_a_key_is_logged_with_its_prefix(admin_client, device_key):
    admin_client.post(key_url(device_key, "rotate"), {"overlap": 2})
    admin_client.post(key_url(device_key, "revoke"))
    history = [str(log.change_message) for log in LogEntry.objects.filter(content_type__model="device").order_by("pk")]
    assert len(history) == 3
    assert all(f"Device key {device_key.prefix}" in history[index] for index in (0, 2))
    assert "Rotated" in history[0]
    assert "Issued" in history[1]
    assert "Revoked" in history[2]
    assert {log.user.username for log in LogEntry.objects.all()} == {"admin"}


def test_a_new_device_leads_to_its_first_key(admin_client, tenant):
    response = admin_client.post(reverse("admin:devices_device_add"), {"tenant": tenant.pk, "name": "press"})
    assert response.url == issue_url(Device.objects.get())


def test_to_ask_for_a_revocation_changes_nothing(admin_client, device_key):
    assert admin_client.get(key_url(device_key, "revoke")).status_code == 200
    assert admin_client.get(key_url(device_key, "rotate")).status_code == 200
    device_key.refresh_from_db()
    assert device_key.state == "active"
    assert DeviceKey.objects.count() == 1


def test_a_key_is_revoked_by_a_post(admin_client, device_key):
    response = admin_client.post(key_url(device_key, "revoke"), follow=True)
    assert response.redirect_chain[-1][0] == page_of(device_key.device)
    assert "is revoked" in response.text
    device_key.refresh_from_db()
    assert device_key.state == "revoked"


@pytest.mark.parametrize(("hours", "state"), [(0, "expired"), (24, "active")])
def test_a_rotated_key_stays_good_for_the_overlap(admin_client, device_key, hours, state):
    response = admin_client.post(key_url(device_key, "rotate"), {"overlap": hours})
    device_key.refresh_from_db()
    assert device_key.state == state
    assert device_key.expires_at - timezone.now() <= timedelta(hours=hours)
    successor = DeviceKey.objects.exclude(pk=device_key.pk).get()
    assert successor.digest == key_digest(PLAINTEXT.search(response.text)[0])


@pytest.mark.parametrize("overlap", ["", "-1", "x", "1000000000000"])
def test_an_overlap_that_is_none_is_refused(admin_client, device_key, overlap):
    assert admin_client.post(key_url(device_key, "rotate"), {"overlap": overlap}).status_code == 200
    assert DeviceKey.objects.count() == 1


@pytest.mark.parametrize("verb", ["rotate", "revoke"])
def test_what_is_over_is_said_to_be_over(admin_client, device_key, verb):
    device_key.revoke()
    for send in (admin_client.get, admin_client.post):
        response = send(key_url(device_key, verb), follow=True)
        assert "is revoked already" in response.text
    assert DeviceKey.objects.count() == 1


@pytest.mark.parametrize("pk", ["0", "x", "9" * 30, "²"])
def test_a_key_or_device_that_is_not_there_is_no_crash(admin_client, pk):
    for address in (f"/admin/devices/devicekey/{pk}/revoke/", f"/admin/devices/device/{pk}/issue-key/"):
        response = admin_client.get(address, follow=True)
        assert response.status_code == 200
        assert "exist" in response.text


@pytest.mark.parametrize("permissions", [[], ["view_device", "view_devicekey", "change_device"]])
def test_keys_are_not_for_staff_without_the_permission(staff, device_key, permissions):
    client = staff(*permissions, tenants=(device_key.device.tenant,))
    for address in (issue_url(device_key.device), key_url(device_key, "rotate"), key_url(device_key, "revoke")):
        assert client.get(address).status_code == 403
        assert client.post(address).status_code == 403
    device_key.refresh_from_db()
    assert device_key.state == "active"
    assert DeviceKey.objects.count() == 1


def test_keys_are_not_changed_without_a_csrf_token(admin_user, device_key):
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post(key_url(device_key, "revoke")).status_code == 403
    assert client.post(issue_url(device_key.device)).status_code == 403
    assert DeviceKey.objects.usable().count() == 1


def test_keys_are_revoked_together_from_their_list(admin_client, make_key):
    keys = [make_key()[0] for _ in range(3)]
    selected = {"action": "revoke_selected", "_selected_action": [key.pk for key in keys[:2]]}
    admin_client.post(list_of(DeviceKey), selected)
    assert {key.pk: key.state for key in DeviceKey.objects.all()} == {
        keys[0].pk: "revoked", keys[1].pk: "revoked", keys[2].pk: "active",
    }  # fmt: skip


def test_keys_are_found_by_their_state(admin_client, make_key):
    active, _ = make_key()
    expired, _ = make_key(expires_at=timezone.now() - timedelta(seconds=1))
    revoked, _ = make_key()
    revoked.revoke()
    for key in (active, expired, revoked):
        assert rows_shown(admin_client.get(list_of(DeviceKey), {"state": key.state})) == [key.pk]


def test_keys_are_not_made_or_edited_by_a_form(admin_client, device_key):
    assert admin_client.get(reverse("admin:devices_devicekey_add")).status_code == 403
    assert admin_client.post(page_of(device_key), {"prefix": "x"}).status_code == 403


# Tenants and devices


def test_tenants_and_devices_are_never_deleted(admin_client, device_key):
    for row in (device_key.device, device_key.device.tenant):
        assert admin_client.post(page_of(row).replace("/change/", "/delete/"), {"post": "yes"}).status_code == 403
    assert Device.objects.exists()


def test_tenants_are_found_by_module(admin_client, make_tenant):
    backup, _ = make_tenant(backup_enabled=True), make_tenant(vpn_enabled=True)
    assert rows_shown(admin_client.get(list_of(Tenant), {"module": "backup"})) == [backup.pk]


def test_devices_are_found_by_whether_they_are_online(admin_client, tenant):
    now = timezone.now()
    seen = {"yes": now, "no": now - timedelta(hours=1), "never": None}
    devices = {
        answer: Device.objects.create(tenant=tenant, name=answer, last_seen_at=moment)
        for answer, moment in seen.items()
    }
    for answer, device in devices.items():
        assert rows_shown(admin_client.get(list_of(Device), {"online": answer})) == [device.pk]


def test_a_device_counts_the_keys_it_can_use(admin_client, device_key):
    DeviceKey.objects.issue(device_key.device)
    DeviceKey.objects.issue(device_key.device)[0].revoke()
    DeviceKey.objects.issue(device_key.device, timezone.now() - timedelta(days=1))
    keyless = Device.objects.create(tenant=device_key.device.tenant, name="keyless")
    shown = {row.pk: row.active_keys for row in admin_client.get(list_of(Device)).context["cl"].result_list}
    assert shown == {device_key.device_id: 2, keyless.pk: 0}


def test_a_device_stays_with_its_tenant(admin_client, device_key, make_tenant):
    device = device_key.device
    admin_client.post(page_of(device), {"name": "renamed", "tenant": make_tenant().pk})
    assert Device.objects.values_list("name", "tenant").get() == ("renamed", device.tenant_id)


def test_staff_see_the_tenants_they_are_members_of_and_no_other(staff, make_tenant, device_key, store, make_alert):
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


def test_staff_cannot_add_a_device_to_a_tenant_of_others(staff, make_tenant):
    mine, other = make_tenant(), make_tenant()
    client = staff("add_device", "view_device", "view_tenant", tenants=(mine,))
    client.post(reverse("admin:devices_device_add"), {"tenant": other.pk, "name": "theirs"})
    client.post(reverse("admin:devices_device_add"), {"tenant": mine.pk, "name": "ours"})
    assert [device.name for device in Device.objects.all()] == ["ours"]


def test_who_adds_a_tenant_sees_it(staff):
    client = staff("add_tenant", "view_tenant")
    client.post(reverse("admin:devices_tenant_add"), {"name": "New", "slug": "new"})
    assert rows_shown(client.get(list_of(Tenant))) == [Tenant.objects.get().pk]


# Events and batches


def test_events_and_batches_are_read_only(admin_client, store):
    event = store()[0]
    for row in (event, event.batch):
        assert admin_client.get(list_of(row).rstrip("/") + "/add/").status_code == 403
        assert admin_client.post(page_of(row), {"kind": "telemetry"}).status_code == 403
        assert admin_client.post(page_of(row).replace("/change/", "/delete/"), {"post": "yes"}).status_code == 403
    admin_client.post(list_of(event), {"action": "delete_selected", "_selected_action": [event.pk], "post": "yes"})
    assert IngestEvent.objects.values_list("kind", flat=True).get() == "log"


def test_hostile_data_is_text_on_a_page(admin_client, store, make_alert):
    event = store(data=HOSTILE)[0]
    alert = make_alert(title=HOSTILE["message"], description=HOSTILE["message"])
    for address in (page_of(event), list_of(event), page_of(alert), list_of(alert)):
        text = admin_client.get(address).text
        assert "<script>alert" not in text
        assert "&lt;/pre&gt;&lt;script&gt;alert" in text


def test_the_page_of_an_event_shows_its_data_readably(admin_client, store):
    assert "Zürich" in admin_client.get(page_of(store(data=HOSTILE)[0])).text


def test_a_list_reads_only_the_start_of_the_data(admin_client, store):
    store(data={"message": "x" * 5000 + "the end"})
    text = admin_client.get(list_of(IngestEvent)).text
    assert "xxx" in text
    assert "the end" not in text


def test_rows_whose_device_and_tenant_are_gone_are_still_shown(admin_client, store, make_alert):
    event, alert = store()[0], make_alert()
    for rows in (IngestEvent.objects, IngestBatch.objects, SecurityAlert.objects):
        rows.update(device=987654, tenant=876543)
    IngestEvent.objects.update(batch=765432)
    for row in (event, event.batch, alert):
        for address in (list_of(row), page_of(row)):
            response = admin_client.get(address)
            assert response.status_code == 200
            assert "#987654 (gone)" in response.text
            assert "#876543 (gone)" in response.text


def test_the_events_of_a_batch_are_one_link_away(admin_client, store):
    store(3)
    events = store(4)
    store(2)
    link = re.search(r'href="([^"]+\?batch=\d+)"', admin_client.get(page_of(events[0].batch)).text)[1]
    assert rows_shown(admin_client.get(link)) == [event.pk for event in reversed(events)]


def test_the_events_of_a_batch_are_found_far_back(admin_client, store, monkeypatch):
    monkeypatch.setattr("ingest.admin.NEAR", 20)
    monkeypatch.setattr(admin_tools, "LOOK_THROUGH", 20)
    batches = [store(7)[0].batch for _ in range(30)]
    for batch in batches[::7]:
        assert len(rows_shown(admin_client.get(list_of(IngestEvent), {"batch": batch.pk}))) == 7


def test_events_are_found_by_the_time_they_came(admin_client, store, monkeypatch):
    start = timezone.now().replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=40)
    days = [store(received_at=start + timedelta(days=day))[0].pk for day in range(20)]
    monkeypatch.setattr(admin_tools, "LOOK_THROUGH", 10)
    wanted = {
        "received_at_from_0": f"{start + timedelta(days=3):%Y-%m-%d}",
        "received_at_to_0": f"{start + timedelta(days=5):%Y-%m-%d}",
    }
    assert rows_shown(admin_client.get(list_of(IngestEvent), wanted)) == days[5:2:-1]
    wanted["received_at_from_1"] = "12:30:00"
    assert rows_shown(admin_client.get(list_of(IngestEvent), wanted)) == days[5:3:-1]


@pytest.mark.parametrize(
    "query",
    [
        {"received_at_from_0": "2026-02-31"},
        {"received_at_to_0": "9999-12-31", "received_at_to_1": "x"},
        {"received_at_from_0": "0001-01-01"},
        {"batch": "x"},
        {"batch": "9" * 30},
        {"batch": "-1"},
        {"kind__exact": "x"},
        {"o": "1.-3.2"},
        {"p": "x"},
        {"_facets": "True"},
    ],
)
def test_nonsense_in_the_address_is_no_crash(admin_client, store, query):
    store()
    assert admin_client.get(list_of(IngestEvent), query, follow=True).status_code == 200


def test_a_filter_looks_through_the_newest_rows_and_says_so(admin_client, store, monkeypatch):
    monkeypatch.setattr(admin_tools, "LOOK_THROUGH", 5)
    old, new = store(3, kind="telemetry"), store(5)
    response = admin_client.get(list_of(IngestEvent), {"kind__exact": "telemetry"})
    assert rows_shown(response) == []
    assert "Looked through the newest rows, back to" in response.text
    response = admin_client.get(list_of(IngestEvent), {"kind__exact": "log"})
    assert rows_shown(response) == [event.pk for event in reversed(new)]
    assert old[0].pk not in rows_shown(response)


@pytest.mark.parametrize("model", [IngestEvent, IngestBatch, SecurityAlert])
@pytest.mark.parametrize("query", [{}, {"tenant__id__exact": "1"}, {"o": "2"}, {"_facets": "True"}])
def test_nothing_is_counted_or_sorted_without_a_bound(admin_client, store, make_alert, model, query):
    store(2)
    make_alert()
    with CaptureQueriesContext(connection) as queries:
        assert admin_client.get(list_of(model), query).status_code == 200
    table = model._meta.db_table
    asked = [query["sql"] for query in queries if f'FROM "{table}"' in query["sql"]]
    assert any("COUNT(" in sql for sql in asked)
    for sql in asked:
        assert re.search(rf'ORDER BY ("{table}"."id"|1) (ASC|DESC)', sql), sql
        assert " LIMIT " in sql or f'"{table}"."id" >= ' in sql, sql
        assert "COUNT(" not in sql or f" LIMIT {admin_tools.COUNT_TO + 1})" in sql, sql


def test_a_list_counts_to_its_bound_and_says_that_there_are_more(admin_client, store, monkeypatch):
    monkeypatch.setattr(admin_tools, "COUNT_TO", 60)
    store(70)
    response = admin_client.get(list_of(IngestEvent))
    assert response.context["cl"].result_count == 60
    assert "of many events; filter to see others" in response.text
    assert len(rows_shown(admin_client.get(list_of(IngestEvent), {"p": 2}))) == 10


@pytest.mark.parametrize("model", [IngestEvent, IngestBatch, SecurityAlert, Device, DeviceKey, Tenant])
def test_a_list_asks_no_more_questions_for_more_rows(
    admin_client, model, store, make_alert, make_key, django_assert_max_num_queries
):
    def add():
        store()
        make_alert(tenant=make_key()[0].device.tenant)

    add()
    with CaptureQueriesContext(connection) as few:
        admin_client.get(list_of(model))
    for _ in range(10):
        add()
    with django_assert_max_num_queries(len(few)):
        assert len(rows_shown(admin_client.get(list_of(model)))) > 10


# Alerts


def test_the_status_of_an_alert_is_all_that_can_be_changed(admin_client, make_alert):
    alert = make_alert()
    admin_client.post(page_of(alert), {"status": "acknowledged", "title": "Nothing", "severity": "info"})
    alert.refresh_from_db()
    assert (alert.status, alert.title, alert.severity) == ("acknowledged", "Port scan", "high")
    assert admin_client.get(reverse("admin:alerts_securityalert_add")).status_code == 403
    assert admin_client.post(page_of(alert).replace("/change/", "/delete/"), {"post": "yes"}).status_code == 403


@pytest.mark.parametrize(
    ("action", "status"), [("acknowledge", "acknowledged"), ("resolve", "resolved"), ("reopen", "open")]
)
def test_alerts_are_triaged_together(admin_client, make_alert, action, status):
    alerts = [make_alert(status="acknowledged" if action == "reopen" else "open") for _ in range(3)]
    chosen = [alert.pk for alert in alerts[:2]]
    admin_client.post(list_of(SecurityAlert), {"action": action, "_selected_action": chosen})
    assert set(SecurityAlert.objects.filter(status=status).values_list("pk", flat=True)) == set(chosen)
    assert LogEntry.objects.filter(object_id__in=chosen, change_message__contains=status).count() == 2


def test_alerts_are_triaged_only_with_the_permission(staff, make_alert):
    alert = make_alert()
    client = staff("view_securityalert", tenants=(alert.tenant,))
    client.post(list_of(SecurityAlert), {"action": "resolve", "_selected_action": [alert.pk]})
    assert client.post(page_of(alert), {"status": "resolved"}).status_code == 403
    alert.refresh_from_db()
    assert alert.status == "open"


def test_alerts_are_found_by_title_address_severity_and_status(admin_client, make_alert):
    found = make_alert(title="Brute force", source_ip="192.0.2.7", severity="critical", status="resolved")
    make_alert()
    for query in ({"q": "brute"}, {"q": "192.0.2"}, {"severity__exact": "critical"}, {"status__exact": "resolved"}):
        assert rows_shown(admin_client.get(list_of(SecurityAlert), query)) == [found.pk]
