"""How staff pages handle requests at the same time, and requests to addresses that no page links to."""

import threading
import time
from datetime import timedelta

import httpx
import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission, User
from django.core.paginator import UnorderedObjectListWarning
from django.db import connection, connections, transaction
from django.db.models import Model, ProtectedError
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from devices.models import Device, DeviceKey
from tenants.models import AuditEntry, Tenant, Verb
from tests.support.live import HTTP
from tests.support.servers import servers_only
from tests.support.side import Side

pytestmark = pytest.mark.django_db(transaction=True)

FIELDS = [
    (model, field)
    for model in apps.get_models()
    if model in admin.site._registry or model._meta.app_label in ("tenants", "admin")
    for field in model._meta.get_fields(include_hidden=True)
]


@pytest.fixture(params=["staff", "superuser"])
def somebody(request) -> Client:
    """A member of staff with every permission, or a superuser."""
    user = User.objects.create_user("somebody", is_staff=True, is_superuser=request.param == "superuser")
    user.user_permissions.set(Permission.objects.all())
    user.tenants.set([Side("ours").tenant])
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


@pytest.mark.slow
@pytest.mark.filterwarnings("error", category=UnorderedObjectListWarning)
def test_choices_are_offered_only_for_fields_of_a_form(somebody):
    """For every field of every model, from either end of a relation: choices in a stable order, or nothing."""
    answers = {}
    for model, field in FIELDS:
        given = {"app_label": model._meta.app_label, "model_name": model._meta.model_name, "field_name": field.name}
        for term in ("", "x", "a b"):
            answer = somebody.get(reverse("admin:autocomplete"), given | {"term": term})
            answers[model._meta.model_name, field.name] = answer.status_code
            assert answer.status_code in (200, 403, 404), given
            assert answer.status_code != 200 or field.concrete or field.many_to_many, given
    assert answers["device", "tenant"] == answers["devicekey", "device"] == answers["provisioningkey", "tenant"] == 200
    assert answers["tenant", "devices"] == answers["device", "name"] == 403


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"app_label": "devices"},
        {"app_label": "x", "model_name": "x", "field_name": "x"},
        {"app_label": "devices", "model_name": "device", "field_name": "x"},
        {"app_label": "devices", "model_name": "device", "field_name": "a\x00b"},
        {"app_label": "auth", "model_name": "permission", "field_name": "content_type"},
        {"app_label": "tenants", "model_name": "tenant", "field_name": "devices"},
    ],
)
def test_unknown_names_leave_no_traceback(server, log_in, given):
    headers = {"Cookie": log_in(user=User.objects.create_superuser("root"))}
    answer = httpx.get(f"{server.url}{reverse('admin:autocomplete')}", params=given, headers=headers, **HTTP)
    assert answer.status_code == 403


@pytest.mark.parametrize("model", admin.site._registry, ids=lambda model: model._meta.model_name)
def test_every_list_has_an_order_before_it_is_paged(rf, model):
    request = rf.get("/")
    request.user = User.objects.create_superuser("root")
    assert admin.site.get_model_admin(model).get_queryset(request).ordered


def post_meanwhile(client: Client, url: str, form: dict[str, object], row: Model) -> HttpResponse:
    """Post a form while `row` is being saved, and return the answer.

    `row` is committed once the form has been checked and its own save is waiting for that of `row`.
    """
    answers: list[HttpResponse] = []

    def post() -> None:
        try:
            answers.append(client.post(url, form))
        finally:
            connections.close_all()

    thread = threading.Thread(target=post)
    with transaction.atomic():
        row.save()
        thread.start()
        deadline = time.monotonic() + 3  # a page waits for four seconds
        with connection.cursor() as cursor:
            while time.monotonic() < deadline:
                cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                if cursor.fetchone()[0]:
                    break
                time.sleep(0.02)
            else:
                raise AssertionError("the form did not wait for the row")
    thread.join()
    return answers[0]


NO_MEMBERS = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}


@servers_only
def test_a_slug_that_another_request_takes_at_the_same_time_is_a_form_error(somebody):
    url = reverse("admin:tenants_tenant_add")
    answer = post_meanwhile(somebody, url, {"slug": "new", "name": "A"} | NO_MEMBERS, Tenant(slug="new", name="B"))
    assert (answer.status_code, "Tenant with this Slug already exists" in answer.text) == (200, True)
    assert Tenant.objects.get(slug="new").name == "B"
    assert AuditEntry.objects.filter(verb=Verb.TENANT_CREATED, object_name="A").count() == 0


@servers_only
def test_a_device_name_that_another_request_takes_at_the_same_time_is_a_form_error(somebody):
    tenant = Tenant.objects.get()
    form = {"tenant": tenant.pk, "name": "press-07", "type": "", "location": ""}
    answer = post_meanwhile(somebody, reverse("admin:devices_device_add"), form, Device(tenant=tenant, name="press-07"))
    assert (answer.status_code, "already exists" in answer.text) == (200, True)
    assert Device.objects.filter(name="press-07").count() == 1


@servers_only
def test_a_key_that_another_request_revokes_at_the_same_moment(somebody):
    device = Device.objects.create(tenant=Tenant.objects.get(), name="press-08")
    key, _ = DeviceKey.objects.issue(device)
    key.revoked_at = timezone.now() - timedelta(seconds=1)
    form = {"action": "revoke_selected", "_selected_action": [key.pk]}
    post_meanwhile(somebody, reverse("admin:devices_devicekey_changelist"), form, key)
    assert DeviceKey.objects.get(pk=key.pk).revoked_at == key.revoked_at
    assert AuditEntry.objects.filter(verb=Verb.DEVICE_KEY_REVOKED).count() == 1  # the other person's


def test_a_device_cannot_get_the_name_of_another(somebody):
    """The tenant is not a field of the form, so Django alone would not check that both together are unique."""
    taken = Device.objects.create(tenant=Tenant.objects.get(), name="taken")
    device = Device.objects.create(tenant=taken.tenant, name="other")
    answer = somebody.post(reverse("admin:devices_device_change", args=[device.pk]), {"name": "taken"})
    assert (answer.status_code, "already exists" in answer.text) == (200, True)


def test_requests_without_a_key_are_counted_for_superusers(somebody):
    """They belong to no tenant."""
    is_superuser = User.objects.get(username="somebody").is_superuser
    assert ("Requests without a valid key" in somebody.get("/admin/").text) is is_superuser


def test_a_user_with_a_history_is_not_deleted():
    user, other = User.objects.create_user("ada"), User.objects.create_user("other")
    LogEntry.objects.log_actions(user.pk, [other], CHANGE, "changed")
    for delete in (user.delete, User.objects.all().delete):
        with pytest.raises(ProtectedError, match="inactive"):
            delete()
    other.delete()
    assert (LogEntry.objects.count(), User.objects.get()) == (1, user)


def test_a_tenant_that_no_chooser_offers_is_a_bad_request(somebody):
    for name in ("device", "provisioningkey"):
        address = reverse(f"admin:devices_{name}_add")
        assert somebody.post(address, {"tenant": "id", "name": "x", "label": "x"}).status_code == 400
