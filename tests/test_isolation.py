"""Nobody sees or changes what belongs to another tenant, on any surface."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import ProgrammingError, connection, models, transaction
from django.db.migrations.state import ProjectState
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from alerts.models import SecurityAlert
from devices.models import Device, DeviceKey, ProvisioningKey
from ingest.models import IngestBatch, IngestEvent, RejectedBatch
from tenants.admin.pages import TenantScoped
from tenants.isolation import PEOPLE_ROLE, acting_as, bypass_isolation
from tenants.models import Membership, Role, Tenant
from tenants.tables import SHARED, CreateTenantTable
from tests.support.admin_pages import list_of, page_of
from tests.support.assertions import assert_problem
from tests.support.events import alert, log
from tests.support.live import ROOT
from tests.support.servers import servers_only
from tests.support.side import Side
from tests.support.sockets import ping, receive

pytestmark = pytest.mark.django_db(transaction=True)

ISOLATED = [Tenant, Device, DeviceKey, ProvisioningKey, IngestBatch, IngestEvent, RejectedBatch, SecurityAlert]
SUPERUSERS_ONLY = [User, Group]
ACTIONS = {
    DeviceKey: ["revoke_selected"],
    ProvisioningKey: ["revoke_selected"],
    SecurityAlert: ["acknowledge", "resolve", "reopen"],
}


@pytest.fixture
def ours() -> Side:
    return Side("ours")


@pytest.fixture
def theirs() -> Side:
    return Side("theirs")


@contextmanager
def nothing_changes(side: Side):
    before = side.state()
    yield
    assert side.state() == before


# The database


@servers_only
@pytest.mark.parametrize("model", ISOLATED)
def test_a_forgotten_filter_shows_nothing_of_others(model, ours, theirs):
    with acting_as(ours.user):
        assert set(model.objects.all()) == {ours.rows[model]}
    assert model.objects.count() == 2


@servers_only
@pytest.mark.parametrize("model", [model for model in ISOLATED if model is not Tenant])
def test_a_forgotten_filter_changes_nothing_of_others(model, ours, theirs):
    with nothing_changes(theirs), acting_as(ours.user):
        field = "tenant" if model is not DeviceKey else "device"
        assert model.objects.update(**{field: getattr(ours, field)}) == 1
        assert model.objects.filter(pk=theirs.rows[model].pk)._raw_delete("default") == 0


@servers_only
@pytest.mark.parametrize("model", [Device, ProvisioningKey, IngestEvent, SecurityAlert])
def test_nothing_can_be_given_to_another_tenant(model, ours, theirs):
    row = ours.rows[model]
    row.tenant = theirs.tenant
    with pytest.raises(ProgrammingError, match="row-level security"), acting_as(ours.user):
        row.save()


@servers_only
def test_whoever_is_no_member_sees_nothing_and_a_superuser_everything(ours, theirs):
    people = {
        "a user without tenants": (User.objects.create_user("nobody"), 0),
        "a superuser": (User.objects.create_superuser("root"), 2),
        "one who may no longer log in": (ours.user, 0),
    }
    User.objects.filter(pk=ours.user.pk).update(is_active=False)
    for who, (user, count) in people.items():
        for model in ISOLATED:
            with acting_as(user):
                assert model.objects.count() == count, f"{who}: {model.__name__}"


def tables_with_a_tenant() -> set[str]:
    """Those whose rows belong to a tenant: by a key of their own, or by the row that a key leads to."""
    found, models = {Tenant}, apps.get_models(include_auto_created=True)
    while more := {model for model in models if any(f.related_model in found for f in model._meta.fields)} - found:
        found |= more
    return {model._meta.db_table for model in found}


@servers_only
def test_every_table_with_a_tenant_has_a_policy_and_no_other_may_be_used():
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relrowsecurity")
        protected = {name for (name,) in cursor.fetchall()}
        cursor.execute(
            "SELECT DISTINCT table_name FROM information_schema.table_privileges WHERE grantee = %s", [PEOPLE_ROLE]
        )
        usable = {name for (name,) in cursor.fetchall()}
    assert protected == tables_with_a_tenant()
    assert protected > {model._meta.db_table for model in ISOLATED}
    assert usable == protected | SHARED.keys() | {"refused_key_counts"}


@servers_only
def test_a_new_table_with_a_tenant_comes_with_its_policy(ours, theirs):
    tenant = ("tenant", models.ForeignKey("tenants.Tenant", models.CASCADE))
    operation = CreateTenantTable("Note", [("id", models.BigAutoField(primary_key=True)), tenant])
    before = ProjectState.from_apps(apps)
    after = before.clone()
    operation.state_forwards("devices", after)
    note = after.apps.get_model("devices", "Note")
    with connection.schema_editor() as editor:
        operation.database_forwards("devices", editor, before, after)
    for side in (ours, theirs):
        note.objects.create(tenant_id=side.tenant.pk)
    with acting_as(ours.user):
        assert [row.tenant_id for row in note.objects.all()] == [ours.tenant.pk]
    with connection.schema_editor() as editor:
        operation.database_backwards("devices", editor, after, before)


@servers_only
def test_nobody_sees_the_members_of_others(ours, theirs):
    with acting_as(ours.user):
        assert [each.user for each in Membership.objects.all()] == [ours.user]


@servers_only
def test_a_partition_is_not_a_way_around(ours, theirs):
    with connection.cursor() as cursor:
        cursor.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'ingest_events'::regclass")
        partitions = [name for (name,) in cursor.fetchall()]
    assert partitions
    for name in partitions:
        with pytest.raises(ProgrammingError, match="permission denied"), acting_as(ours.user):
            connection.cursor().execute(f"SELECT * FROM {name}")


@servers_only
def test_acting_as_somebody_ends_with_its_block_also_within_a_transaction(ours, theirs):
    with transaction.atomic():
        with acting_as(ours.user):
            with bypass_isolation():
                assert Device.objects.count() == 2
            assert Device.objects.count() == 1
            with pytest.raises(LookupError), bypass_isolation():
                raise LookupError
            assert Device.objects.count() == 1
        assert Device.objects.count() == 2


@pytest.fixture
def plain_user():
    """The address of an empty database whose owner may make no roles, as `docs/operations.md` advises."""
    url = urlsplit(os.environ["DATABASE_URL"])
    with psycopg.connect(url.geturl(), autocommit=True) as administrator:
        administrator.execute("CREATE ROLE ingestcloud_plain LOGIN PASSWORD 'plain'")
        administrator.execute("CREATE DATABASE ingestcloud_plain OWNER ingestcloud_plain")
        host = url.netloc.rpartition("@")[2]
        yield administrator, url._replace(netloc=f"ingestcloud_plain:plain@{host}", path="/ingestcloud_plain").geturl()
        administrator.execute("DROP DATABASE ingestcloud_plain WITH (FORCE)")
        administrator.execute("DROP ROLE ingestcloud_plain")


@servers_only
def test_a_database_user_that_may_make_no_roles_is_told_what_to_do(plain_user, db):
    administrator, url = plain_user

    def manage(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, cwd=ROOT, env=os.environ | {"DATABASE_URL": url}, capture_output=True, text=True)

    refused = manage("migrate")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert "GRANT ingestcloud_people TO ingestcloud_plain" in refused.stderr
    administrator.execute("GRANT ingestcloud_people TO ingestcloud_plain")
    assert manage("migrate").returncode == 0
    assert manage("create_tenant", "acme").returncode == 0
    with psycopg.connect(url) as as_people:
        assert as_people.execute("SELECT count(*) FROM tenants").fetchone() == (1,)
        as_people.execute("SET ROLE ingestcloud_people")
        assert as_people.execute("SELECT count(*) FROM tenants").fetchone() == (0,)


# The admin


@pytest.mark.parametrize("model", ISOLATED)
def test_staff_find_nothing_of_others_in_a_list(model, ours, theirs):
    client = ours.client()
    for query in (
        {},
        {"q": "theirs"},
        {"tenant__id__exact": theirs.tenant.pk},
        {"device__id__exact": theirs.device.pk},
    ):
        page = client.get(list_of(model), query, follow=True)
        assert page.status_code == 200
        assert "theirs-" not in page.text.replace("theirs-staff", "")
    assert "ours" in client.get(list_of(model)).text


@servers_only
@pytest.mark.parametrize("model", ISOLATED)
def test_a_list_that_forgets_its_filter_shows_nothing_of_others(model, ours, theirs, monkeypatch):
    monkeypatch.setattr(TenantScoped, "get_queryset", super(TenantScoped, TenantScoped).get_queryset, raising=True)
    page = ours.client().get(list_of(model))
    assert [type(row)(pk=row.pk) for row in page.context["cl"].result_list] == [model(pk=ours.rows[model].pk)]


def addresses_of(model: type[Model], object_id: object) -> list[str]:
    """Every page that the admin has for `model`, those of the row with `object_id` among them."""
    found = []
    for pattern in admin.site.get_model_admin(model).get_urls():
        if pattern.name is None:  # a redirect of addresses of Django 1.8
            continue
        keys = dict.fromkeys(pattern.pattern.converters, object_id)
        found.append(reverse(f"admin:{pattern.name}", kwargs=keys))
    return found


FORM = {"status": "resolved", "name": "x", "overlap": 0, "label": "x", "usage_limit": 1, "slug": "x", "password1": "x"}


def test_every_model_of_the_admin_is_looked_at_here():
    assert set(admin.site._registry) == {*ISOLATED, *SUPERUSERS_ONLY}


@pytest.mark.parametrize("model", ISOLATED)
def test_staff_open_and_change_no_page_of_others(model, ours, theirs):
    client, row = ours.client(), theirs.rows[model]
    mine = set(addresses_of(model, row.pk)) - set(addresses_of(model, 0))
    assert len(mine) >= 3
    with nothing_changes(theirs):
        for address in mine:
            for answer in (client.get(address), client.post(address, FORM)):
                assert answer.status_code in (302, 403, 404), address
                assert "theirs-" not in answer.text


@pytest.mark.parametrize("model", SUPERUSERS_ONLY)
def test_users_and_groups_are_for_superusers_alone(model, ours, theirs):
    """Staff could give themselves every permission, and see the people of all tenants."""
    for side in (ours, theirs):
        Group.objects.create(pk=side.user.pk, name=f"{side.name}-group")
    client = ours.client()
    before = list(User.objects.order_by("pk").values()), list(Group.objects.values())
    for address in addresses_of(model, theirs.user.pk) + addresses_of(model, ours.user.pk):
        form = FORM | {
            "username": "x",
            "is_superuser": "on",
            "is_staff": "on",
            "password2": "x",
            "usable_password": "true",
        }
        for answer in (client.get(address), client.post(address, form)):
            assert answer.status_code == 403, address
            assert "theirs-" not in answer.text
    assert (list(User.objects.order_by("pk").values()), list(Group.objects.values())) == before
    for label in (model._meta.verbose_name_plural.title(), f"/admin/auth/{model._meta.model_name}/"):
        assert label not in client.get(reverse("admin:index")).text
    superuser = Client()
    superuser.force_login(User.objects.create_superuser("root"))
    assert superuser.get(page_of(theirs.user)).status_code == 200


def test_staff_are_offered_no_users_and_make_nobody_a_member(ours, theirs):
    client = ours.client()
    query = {"app_label": "tenants", "model_name": "membership", "field_name": "user", "term": ""}
    assert client.get(reverse("admin:autocomplete"), query).status_code == 403
    page = client.get(page_of(ours.tenant)).text
    assert "ours-staff" in page
    assert "theirs-" not in page
    membership = ours.tenant.memberships.get()
    kept = {"memberships-0-id": membership.pk, "memberships-0-user": ours.user.pk, "memberships-0-role": "analyst"}
    added = {"memberships-1-user": theirs.user.pk, "memberships-1-role": "viewer"}
    for members in (kept | added, kept | {"memberships-0-role": "admin"}, kept | {"memberships-0-DELETE": "on"}):
        counts = {"memberships-TOTAL_FORMS": 2, "memberships-INITIAL_FORMS": 1}
        form = {"slug": "ours", "name": "renamed", "members": [theirs.user.pk], **counts, **members}
        assert client.post(page_of(ours.tenant), form).status_code == 302
    ours.tenant.refresh_from_db()
    assert ours.tenant.name == "renamed"
    assert list(ours.tenant.memberships.values_list("user", "role")) == [(ours.user.pk, Role.ANALYST)]


def test_superusers_add_and_remove_members_on_the_tenants_page(ours, theirs):
    superuser = Client()
    superuser.force_login(User.objects.create_superuser("root"))
    membership = ours.tenant.memberships.get()
    form = {
        "slug": "ours", "name": "ours", "memberships-TOTAL_FORMS": 2, "memberships-INITIAL_FORMS": 1,
        "memberships-0-id": membership.pk, "memberships-0-tenant": ours.tenant.pk,
        "memberships-0-user": ours.user.pk, "memberships-0-role": "admin",
        "memberships-1-user": theirs.user.pk, "memberships-1-role": "viewer",
    }  # fmt: skip
    assert superuser.post(page_of(ours.tenant), form).status_code == 302
    assert set(ours.tenant.memberships.values_list("user", "role")) == {
        (ours.user.pk, Role.ADMIN),
        (theirs.user.pk, Role.VIEWER),
    }
    form |= {"memberships-TOTAL_FORMS": 1, "memberships-0-DELETE": "on"}
    assert superuser.post(page_of(ours.tenant), form).status_code == 302
    assert [member.user for member in ours.tenant.memberships.all()] == [theirs.user]


def test_a_user_is_not_deleted_with_what_they_did(ours):
    superuser = Client()
    superuser.force_login(User.objects.create_superuser("root"))
    for address in (page_of(ours.user).replace("change", "delete"), list_of(User)):
        form = {"post": "yes", "action": "delete_selected", "_selected_action": [ours.user.pk]}
        superuser.post(address, form)
    assert User.objects.filter(pk=ours.user.pk).exists()


@pytest.mark.parametrize(("model", "action"), [(model, name) for model, names in ACTIONS.items() for name in names])
def test_staff_select_nothing_of_others_for_an_action(model, action, ours, theirs):
    form = {"action": action, "_selected_action": [theirs.rows[model].pk], "select_across": "1"}
    client = ours.client()
    assert action in dict(client.get(list_of(model)).context["action_form"].fields["action"].choices)
    with nothing_changes(theirs):
        assert client.post(list_of(model), form, follow=True).status_code == 200


def test_staff_are_offered_nothing_of_others(ours, theirs):
    client = ours.client()
    for model, field in ((Device, "tenant"), (ProvisioningKey, "tenant")):
        query = {"app_label": "devices", "model_name": model._meta.model_name, "field_name": field, "term": ""}
        offered = client.get(reverse("admin:autocomplete"), query).json()["results"]
        assert [each["id"] for each in offered] == [str(ours.tenant.pk)]
        form = {"tenant": theirs.tenant.pk, "name": "x", "label": "x", "usage_limit": 1}
        assert client.post(reverse(f"admin:devices_{model._meta.model_name}_add"), form).context["errors"]
    assert Device.objects.count() == ProvisioningKey.objects.count() == 2


def test_a_tenants_slug_is_taken_for_everybody(ours, theirs):
    page = ours.client().post(reverse("admin:tenants_tenant_add"), {"slug": "theirs", "name": "x"})
    assert page.context["errors"]
    assert ours.client().post(reverse("admin:tenants_tenant_add"), {"slug": "new", "name": "x"}).status_code == 302
    assert set(Tenant.objects.for_user(ours.user).values_list("slug", flat=True)) == {"ours", "new"}


def test_the_front_page_of_the_admin_counts_nothing_of_others(ours, theirs):
    page = ours.client().get(reverse("admin:index"))
    assert "theirs-" not in page.text
    assert {"0 of 1", "1"} <= {figure.value for figure in page.context["figures"]}


# Pages, sockets, devices


def test_the_live_page_shows_nothing_of_others(ours, theirs):
    page = ours.client().get(reverse("live_alerts"))
    assert "ours-title" in page.text
    assert "theirs" not in page.text


def test_a_socket_is_sent_nothing_of_others(server, ours, theirs, log_in):
    with server.socket(log_in(user=ours.user), "?since=0") as socket:
        assert receive(socket, 1)[0]["title"] == "ours-title"
        assert server.post(theirs.plaintext, [alert("theirs again")]).status_code == 204
        assert server.post(ours.plaintext, [alert("ours again")]).status_code == 204
        assert receive(socket, 1)[0]["title"] == "ours again"
        ping(socket)


def test_a_device_sends_for_its_own_tenant_whatever_it_says(server, ours, theirs):
    body = [log(tenant="theirs", tenant_id=theirs.tenant.pk, device_id=theirs.device.pk)]
    with nothing_changes(theirs):
        assert server.post(ours.plaintext, body).status_code == 204
    assert IngestEvent.objects.latest("pk").tenant == ours.tenant


def test_what_another_device_has_sent_is_no_repeat_and_its_names_are_free(server, ours, theirs):
    body = json.dumps([log()]).encode()
    for side in (ours, theirs):
        headers = {"Idempotency-Key": "batch-1"}
        assert server.post(side.plaintext, content=body, headers=headers).status_code == 204
    assert set(IngestEvent.objects.order_by("-pk")[:2].values_list("tenant__name", flat=True)) == {"ours", "theirs"}


def test_no_key_is_good_for_anything_else(server, ours):
    assert_problem(server.post(ours.provisioning_plaintext, [log()]), 401, "invalid_device_key")
