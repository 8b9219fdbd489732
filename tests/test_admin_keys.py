"""Keys in the admin."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from devices.keys import key_digest
from devices.models import Device, DeviceKey, ProvisioningKey
from tests.support.admin_pages import list_of, page_of, rows_shown

pytestmark = pytest.mark.django_db

PLAINTEXT = re.compile(r"dvc_[\w-]{43}")


def issue_url(device: Device) -> str:
    return reverse("admin:devices_device_issue_key", args=[device.pk])


def key_url(key: DeviceKey, verb: str) -> str:
    return reverse(f"admin:devices_devicekey_{verb}", args=[key.pk])


def test_a_plaintext_is_shown_only_in_the_response_to_the_post(admin_client, tenant):
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
    for address in (page_of(device), page_of(key), issue_url(device), reverse("admin:index")):
        assert plaintext not in admin_client.get(address).text


def test_the_key_comes_with_a_command_that_sends_a_first_event(admin_client, device_key):
    response = admin_client.post(issue_url(device_key.device))
    assert "curl -i http://testserver/v1/ingest" in response.text


def test_a_key_can_be_given_an_expiry_time(admin_client, tenant):
    device = Device.objects.create(tenant=tenant, name="press")
    admin_client.post(issue_url(device), {"expires_at": "2100-01-01T12:00"})
    assert DeviceKey.objects.get().expires_at.isoformat() == "2100-01-01T12:00:00+00:00"


def test_a_key_that_would_already_be_expired_is_not_issued(admin_client, tenant):
    device = Device.objects.create(tenant=tenant, name="press")
    response = admin_client.post(issue_url(device), {"expires_at": "2001-01-01T12:00"})
    assert "Choose a time in the future" in response.text
    assert not DeviceKey.objects.exists()


def test_adding_a_device_leads_to_issuing_its_first_key(admin_client, tenant):
    response = admin_client.post(reverse("admin:devices_device_add"), {"tenant": tenant.pk, "name": "press"})
    assert response.url == issue_url(Device.objects.get())


def test_opening_the_revoke_or_rotate_page_changes_nothing(admin_client, device_key):
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
def test_a_rotated_key_stays_valid_for_the_overlap(admin_client, device_key, hours, state):
    response = admin_client.post(key_url(device_key, "rotate"), {"overlap": hours})
    device_key.refresh_from_db()
    assert device_key.state == state
    assert device_key.expires_at - timezone.now() <= timedelta(hours=hours)
    successor = DeviceKey.objects.exclude(pk=device_key.pk).get()
    assert successor.digest == key_digest(PLAINTEXT.search(response.text)[0])


@pytest.mark.parametrize("overlap", ["", "-1", "x", "1000000000000"])
def test_an_invalid_overlap_is_refused(admin_client, device_key, overlap):
    assert admin_client.post(key_url(device_key, "rotate"), {"overlap": overlap}).status_code == 200
    assert DeviceKey.objects.count() == 1


@pytest.mark.parametrize("verb", ["rotate", "revoke"])
def test_a_revoked_key_is_reported_as_already_revoked(admin_client, device_key, verb):
    device_key.revoke()
    for send in (admin_client.get, admin_client.post):
        response = send(key_url(device_key, verb), follow=True)
        assert "is already revoked" in response.text
    assert DeviceKey.objects.count() == 1


@pytest.mark.parametrize("pk", ["0", "x", "9" * 30, "²"])
def test_a_key_or_device_that_does_not_exist_crashes_no_page(admin_client, pk):
    for address in (f"/admin/devices/devicekey/{pk}/revoke/", f"/admin/devices/device/{pk}/issue-key/"):
        response = admin_client.get(address, follow=True)
        assert response.status_code == 200
        assert "exist" in response.text


@pytest.mark.parametrize("permissions", [[], ["view_device", "view_devicekey", "change_device"]])
def test_staff_without_the_permission_cannot_manage_keys(staff, device_key, permissions):
    client = staff(*permissions, tenants=(device_key.device.tenant,))
    for address in (issue_url(device_key.device), key_url(device_key, "rotate"), key_url(device_key, "revoke")):
        assert client.get(address).status_code == 403
        assert client.post(address).status_code == 403
    device_key.refresh_from_db()
    assert device_key.state == "active"
    assert DeviceKey.objects.count() == 1


def test_keys_cannot_be_changed_without_a_csrf_token(admin_user, device_key):
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post(key_url(device_key, "revoke")).status_code == 403
    assert client.post(issue_url(device_key.device)).status_code == 403
    assert DeviceKey.objects.usable().count() == 1


def test_keys_can_be_revoked_in_bulk_from_their_list(admin_client, make_key):
    keys = [make_key()[0] for _ in range(3)]
    selected = {"action": "revoke_selected", "_selected_action": [key.pk for key in keys[:2]]}
    admin_client.post(list_of(DeviceKey), selected)
    assert {key.pk: key.state for key in DeviceKey.objects.all()} == {
        keys[0].pk: "revoked", keys[1].pk: "revoked", keys[2].pk: "active",
    }  # fmt: skip


def test_keys_can_be_found_by_state(admin_client, make_key):
    active, _ = make_key()
    expired, _ = make_key(expires_at=timezone.now() - timedelta(seconds=1))
    revoked, _ = make_key()
    revoked.revoke()
    for key in (active, expired, revoked):
        assert rows_shown(admin_client.get(list_of(DeviceKey), {"state": key.state})) == [key.pk]


def test_keys_cannot_be_created_or_edited_with_a_form(admin_client, device_key):
    assert admin_client.get(reverse("admin:devices_devicekey_add")).status_code == 403
    assert admin_client.post(page_of(device_key), {"prefix": "x"}).status_code == 403


# Provisioning keys


@pytest.fixture
def provisioning_key(tenant) -> ProvisioningKey:
    return ProvisioningKey.objects.issue(tenant, "Delivery of May")[0]


def test_a_provisioning_key_is_shown_once_with_a_command_that_registers(admin_client, tenant):
    form = {
        "tenant": tenant.pk,
        "label": "Hall 3",
        "usage_limit": 5,
        "expires_at_0": "2100-01-01",
        "expires_at_1": "12:00",
    }
    response = admin_client.post(reverse("admin:devices_provisioningkey_add"), form)
    assert response.status_code == 200, response.text
    assert "no-store" in response["Cache-Control"]
    plaintext = re.search(r"prv_[\w-]{43}", response.text)[0]
    assert "curl -i http://testserver/api/v1/devices/register" in response.text

    key = ProvisioningKey.objects.get()
    assert (key.digest, key.label, key.usage_limit) == (key_digest(plaintext), "Hall 3", 5)
    assert key.expires_at.isoformat() == "2100-01-01T12:00:00+00:00"
    for address in (page_of(key), list_of(ProvisioningKey), page_of(tenant)):
        assert plaintext not in admin_client.get(address).text


@pytest.mark.parametrize(
    "wrong", [{"usage_limit": 0}, {"label": ""}, {"expires_at_0": "2001-01-01", "expires_at_1": "12:00"}]
)
def test_a_provisioning_key_that_would_be_useless_is_not_created(admin_client, tenant, wrong):
    form = {"tenant": tenant.pk, "label": "Hall 3", "usage_limit": 5} | wrong
    assert admin_client.post(reverse("admin:devices_provisioningkey_add"), form).context["errors"]
    assert not ProvisioningKey.objects.exists()


def test_a_provisioning_key_is_revoked_by_a_post(admin_client, provisioning_key, tenant):
    url = reverse("admin:devices_provisioningkey_revoke", args=[provisioning_key.pk])
    assert "Delivery of May" in admin_client.get(url).text
    assert ProvisioningKey.objects.get().state == "active"
    assert admin_client.post(url).url == page_of(tenant)
    assert ProvisioningKey.objects.get().state == "revoked"
    assert f"{provisioning_key} is already revoked" in admin_client.post(url, follow=True).text


def test_a_used_up_provisioning_key_can_still_be_revoked(admin_client, provisioning_key):
    """A device registered with it could still repeat its registration."""
    ProvisioningKey.objects.update(use_count=1)
    url = reverse("admin:devices_provisioningkey_revoke", args=[provisioning_key.pk])
    assert url in admin_client.get(page_of(provisioning_key)).text
    admin_client.post(url)
    assert ProvisioningKey.objects.get().state == "revoked"


def test_provisioning_keys_can_be_found_by_state(admin_client, tenant):
    issue = ProvisioningKey.objects.issue
    keys = {state: issue(tenant, state)[0] for state in ProvisioningKey.STATES}
    keys["revoked"].revoke()
    past = timezone.now() - timedelta(days=1)
    ProvisioningKey.objects.filter(label="expired").update(expires_at=past)
    ProvisioningKey.objects.filter(label="used up").update(use_count=1)
    for state, key in keys.items():
        key.refresh_from_db()
        assert key.state == state
        found = admin_client.get(list_of(ProvisioningKey), {"state": state})
        assert rows_shown(found) == [key.pk], state


def test_a_provisioning_key_links_to_its_devices(admin_client, provisioning_key, make_key, tenant):
    make_key(tenant)
    device = Device.objects.create(tenant=tenant, name="came by it", registered_with=provisioning_key)
    page = admin_client.get(page_of(provisioning_key)).text
    url = f"{list_of(Device)}?registered_with__exact={provisioning_key.pk}"
    assert url in page
    assert rows_shown(admin_client.get(url)) == [device.pk]
    assert page_of(provisioning_key) in admin_client.get(page_of(device)).text


def test_staff_can_create_provisioning_keys_only_for_their_own_tenants(staff, make_tenant, provisioning_key):
    mine = make_tenant()
    client = staff("add_provisioningkey", "view_provisioningkey", "change_provisioningkey", tenants=(mine,))
    form = {"tenant": provisioning_key.tenant.pk, "label": "Hall 3", "usage_limit": 1}
    assert client.post(reverse("admin:devices_provisioningkey_add"), form).context["errors"]
    assert client.post(reverse("admin:devices_provisioningkey_add"), form | {"tenant": mine.pk}).status_code == 200
    assert rows_shown(client.get(list_of(ProvisioningKey))) == [ProvisioningKey.objects.get(tenant=mine).pk]
    client.post(reverse("admin:devices_provisioningkey_revoke", args=[provisioning_key.pk]))
    provisioning_key.refresh_from_db()
    assert provisioning_key.state == "active"
