"""Nobody can see or change what belongs to another tenant, through any interface."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from io import StringIO
from urllib.parse import urlsplit

import psycopg
import pytest
from axes.models import AccessAttempt, AccessAttemptExpiration, AccessFailureLog, AccessLog
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import ProgrammingError, connection, models, transaction
from django.db.migrations.state import ProjectState
from django.db.models import F, Model
from django.test import Client
from django.urls import URLPattern, reverse

from alerts.models import AlertGroup, SecurityAlert
from devices.models import Device, DeviceKey, ProvisioningKey
from exports.models import ListExport
from ingest.models import IngestEvent
from tenants.admin.pages import TenantScoped
from tenants.isolation import PEOPLE_ROLE, acting_as, bypass_isolation
from tenants.models import AuditEntry, Membership, Role, Tenant
from tenants.tables import CreateTenantTable
from tests.support.admin_pages import list_of, page_of
from tests.support.assertions import assert_problem
from tests.support.events import alert, log
from tests.support.live import ROOT
from tests.support.servers import servers_only
from tests.support.side import Side
from tests.support.sockets import ping, receive

pytestmark = pytest.mark.django_db(transaction=True)

# The models in the admin: those that staff see for their own tenants, and all others.
ISOLATED = [model for model, pages in admin.site._registry.items() if isinstance(pages, TenantScoped)]
OF_TENANTS = [model for model in ISOLATED if model is not ListExport]  # which belongs to a user, whatever the tenant
SUPERUSERS_ONLY = [model for model in admin.site._registry if model not in ISOLATED]
ACTIONS = {name for name, _ in admin.site.actions} | {
    name for pages in admin.site._registry.values() for name in pages.actions or ()
}
# Tables that all pages may read although they have no policy, and why.
SHARED = {
    "auth_permission": "the code defines the permissions",
    "django_content_type": "the code defines the models",
    "refused_key_counts": "a request without a valid key belongs to no tenant",
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
def test_a_forgotten_filter_shows_nothing_of_other_tenants(model, ours, theirs):
    with acting_as(ours.user):
        assert set(model.objects.all()) == ours.all_of(model)
    assert theirs.rows[model] in model.objects.all()


@servers_only
@pytest.mark.parametrize("model", [model for model in OF_TENANTS if model is not Tenant])
def test_a_forgotten_filter_changes_nothing_of_other_tenants(model, ours, theirs):
    with nothing_changes(theirs), acting_as(ours.user):
        field = "tenant" if model is not DeviceKey else "device"
        if model is not AuditEntry:  # which people may not change at all
            assert model.objects.update(**{field: getattr(ours, field)}) == 1
        with suppress(ProgrammingError), transaction.atomic():  # people may delete no rule at all
            assert model.objects.filter(pk=theirs.rows[model].pk)._raw_delete("default") == 0


@servers_only
@pytest.mark.parametrize("model", [Device, ProvisioningKey, IngestEvent, SecurityAlert, AlertGroup])
def test_no_row_can_be_moved_to_another_tenant(model, ours, theirs):
    row = ours.rows[model]
    row.tenant = theirs.tenant
    with pytest.raises(ProgrammingError, match="row-level security"), acting_as(ours.user):
        row.save()


@servers_only
def test_non_members_see_nothing_and_superusers_everything(ours, theirs):
    people = {
        "a user without tenants": (User.objects.create_user("nobody"), False),
        "a superuser": (User.objects.create_superuser("root"), True),
        "a deactivated user": (ours.user, False),
    }
    User.objects.filter(pk=ours.user.pk).update(is_active=False)
    for who, (user, sees_all) in people.items():
        for model in OF_TENANTS:
            rows = set(model.objects.all()) if sees_all else set()
            with acting_as(user):
                assert set(model.objects.all()) == rows, f"{who}: {model.__name__}"


def relatives(model: type[Model]) -> set[type[Model]]:
    """The models that `model` has foreign keys to, and those with which it has a many-to-many relation."""
    return {
        field.related_model
        for field in model._meta.get_fields()
        if field.is_relation and (field.many_to_many or (field.concrete and field.related_model))
    }


def models_with_a_tenant() -> list[type[Model]]:
    """The models whose rows belong to a tenant or are about its people, through however many relations."""
    found, models = {Tenant}, apps.get_models(include_auto_created=True)
    while more := {model for model in models if relatives(model) & found} - found:
        found |= more
    return sorted(
        (model for model in found if model._meta.db_table not in SHARED), key=lambda model: model._meta.db_table
    )


@servers_only
def test_every_table_with_a_tenant_has_a_policy_and_no_other_may_be_used():
    """So sessions and failed logins, which have no foreign key to a tenant or a user, may not be used."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relrowsecurity")
        protected = {name for (name,) in cursor.fetchall()}
        cursor.execute(
            "SELECT DISTINCT table_name FROM information_schema.role_table_grants WHERE grantee IN (%s, 'PUBLIC')"
            " AND table_schema = current_schema()",
            [PEOPLE_ROLE],
        )
        usable = {name for (name,) in cursor.fetchall()}
    assert protected == {model._meta.db_table for model in models_with_a_tenant()}
    assert usable == protected | SHARED.keys()


@servers_only
@pytest.mark.parametrize("model", models_with_a_tenant())
def test_a_policy_protects_the_rows_of_each_tenant(model, ours, theirs):
    """Nobody can see, change, add or delete a row of another tenant, or of its people."""
    mine, others = ours.row_of(model), theirs.row_of(model)
    with acting_as(ours.user):
        assert set(model._default_manager.filter(pk__in=[mine.pk, others.pk])) == {mine}
    field = next(field for field in model._meta.concrete_fields if not field.primary_key)
    row = model._default_manager.filter(pk=others.pk)
    copy = model(**{f.attname: getattr(others, f.attname) for f in model._meta.concrete_fields if not f.primary_key})
    with nothing_changes(theirs):
        assert refused_or_nothing(ours, lambda: row.update(**{field.name: F(field.name)}))
        assert refused_or_nothing(ours, lambda: row._raw_delete("default"))
        with pytest.raises(ProgrammingError, match=r"row-level security|permission denied"), acting_as(ours.user):
            copy.save_base(force_insert=True)
    with acting_as(User.objects.create_superuser("root")):
        assert set(model._default_manager.filter(pk__in=[mine.pk, others.pk])) == {mine, others}


def refused_or_nothing(side: Side, change) -> bool:
    """Whether `change` is denied to the user of `side`, or finds no row to change."""
    try:
        with acting_as(side.user):
            return change() == 0
    except ProgrammingError as error:
        return "permission denied" in str(error)


@servers_only
def test_nobody_can_make_themselves_a_superuser_or_change_an_account(ours, theirs):
    for user in (ours.user, AnonymousUser()):
        with nothing_changes(ours), acting_as(user):
            assert User.objects.update(is_superuser=True, password="") == 0
            assert Group.objects.update(name="x") == Membership.objects.update(role=Role.ADMIN) == 0
            assert Membership.objects.all()._raw_delete("default") == 0
    with pytest.raises(ProgrammingError, match="row-level security"), acting_as(ours.user):
        ours.user.groups.create(name="all")
    with pytest.raises(ProgrammingError, match="row-level security"), acting_as(ours.user):
        ours.user.user_permissions.through.objects.create(user=ours.user, permission=Permission.objects.first())


@servers_only
def test_nobody_can_add_a_member(ours, theirs):
    with pytest.raises(ProgrammingError, match="row-level security"), acting_as(ours.user):
        ours.tenant.members.add(theirs.user)
    with pytest.raises(ProgrammingError, match="row-level security"), acting_as(ours.user):
        theirs.tenant.members.add(ours.user)


@servers_only
def test_colleagues_see_each_other_and_what_they_did_but_not_their_permissions(ours, theirs):
    colleague = User.objects.create_user("colleague")
    colleague.tenants.add(ours.tenant)
    with acting_as(colleague):
        assert set(User.objects.all()) == {ours.user, colleague}
        assert [entry.user for entry in LogEntry.objects.select_related("user")] == [ours.user]
        assert not Group.objects.exists()
        assert not ours.user.user_permissions.exists()
    with pytest.raises(ProgrammingError, match="row-level security"), acting_as(colleague):
        LogEntry.objects.log_actions(ours.user.pk, [ours.device], CHANGE, "It was somebody else.")


@servers_only
def test_a_page_knows_what_its_user_may_do(ours, theirs):
    """By Django's own look-up of the user's permissions and groups."""
    ours.user.user_permissions.clear()
    permission = ours.group.permissions.get()
    with acting_as(ours.user):
        assert User.objects.get(pk=ours.user.pk).get_all_permissions() == {
            f"{permission.content_type.app_label}.{permission.codename}"
        }


@servers_only
@pytest.mark.parametrize("model", [Session, AccessAttempt, AccessAttemptExpiration, AccessFailureLog, AccessLog])
def test_no_page_can_read_sessions_or_failed_logins(model, ours):
    for user in (ours.user, User.objects.create_superuser("root")):
        with pytest.raises(ProgrammingError, match="permission denied"), acting_as(user):
            model.objects.count()


@servers_only
def test_a_temporary_table_cannot_say_who_is_a_superuser(ours, theirs):
    with acting_as(ours.user), connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE auth_user ON COMMIT DROP AS SELECT %s AS id, true AS is_active,"
            " true AS is_superuser",
            [ours.user.pk],
        )
        assert Tenant.objects.get() == ours.tenant


@servers_only
def test_each_function_of_a_policy_is_called_once_per_query(ours, theirs):
    """Not once per row: the plan calls them in an InitPlan, apart from the scan."""
    for model in models_with_a_tenant():
        with acting_as(ours.user):
            plan = model._default_manager.all().explain(verbose=True)
        scan = [line for line in plan.splitlines() if "Filter:" in line]
        assert "InitPlan" in plan
        assert not [line for line in scan if "ingestcloud_" in line], plan


@servers_only
def test_a_new_table_with_a_tenant_is_created_with_its_policy(ours, theirs):
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
def test_nobody_sees_the_members_of_other_tenants(ours, theirs):
    with acting_as(ours.user):
        assert [each.user for each in Membership.objects.all()] == [ours.user]


@servers_only
def test_a_partition_does_not_bypass_the_policy(ours, theirs):
    with connection.cursor() as cursor:
        cursor.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'ingest_events'::regclass")
        partitions = [name for (name,) in cursor.fetchall()]
    assert partitions
    for name in partitions:
        with pytest.raises(ProgrammingError, match="permission denied"), acting_as(ours.user):
            connection.cursor().execute(f"SELECT * FROM {name}")


@servers_only
def test_acting_as_somebody_ends_with_its_block_even_within_a_transaction(ours, theirs):
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
    """An empty database whose owner may not create roles, as `docs/operations.md` advises: (administrator, URL)."""
    url = urlsplit(os.environ["DATABASE_URL"])
    with psycopg.connect(url.geturl(), autocommit=True) as administrator:
        administrator.execute("CREATE ROLE ingestcloud_plain LOGIN PASSWORD 'plain'")
        administrator.execute("CREATE DATABASE ingestcloud_plain OWNER ingestcloud_plain")
        host = url.netloc.rpartition("@")[2]
        yield administrator, url._replace(netloc=f"ingestcloud_plain:plain@{host}", path="/ingestcloud_plain").geturl()
        administrator.execute("DROP DATABASE ingestcloud_plain WITH (FORCE)")
        administrator.execute("DROP ROLE ingestcloud_plain")


def manage(url: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"DATABASE_URL": url}, capture_output=True, text=True)


@servers_only
def test_a_database_user_that_cannot_create_roles_is_told_what_to_do(plain_user, db):
    administrator, url = plain_user

    refused = manage(url, "migrate")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert "GRANT ingestcloud_people TO ingestcloud_plain" in refused.stderr
    administrator.execute("GRANT ingestcloud_people TO ingestcloud_plain")
    assert manage(url, "migrate").returncode == 0
    assert manage(url, "create_tenant", "acme").returncode == 0
    with psycopg.connect(url) as as_people:
        assert as_people.execute("SELECT count(*) FROM tenants").fetchone() == (1,)
        as_people.execute("SET ROLE ingestcloud_people")
        assert as_people.execute("SELECT count(*) FROM tenants").fetchone() == (0,)


SCHEMA = """
SELECT 'column', format('%s.%s %s', table_name, column_name, data_type) FROM information_schema.columns
 WHERE table_schema = 'public'
 UNION SELECT 'policy', format('%s %s %s %s %s', tablename, policyname, cmd, qual, with_check) FROM pg_policies
 UNION SELECT 'isolated', relname FROM pg_class WHERE relrowsecurity
 UNION SELECT 'grant', format('%s %s', table_name, privilege_type) FROM information_schema.role_table_grants
 WHERE grantee = 'ingestcloud_people'
 UNION SELECT 'index', indexdef FROM pg_indexes WHERE schemaname = 'public'
 UNION SELECT 'function', pg_get_functiondef(oid) FROM pg_proc WHERE proname LIKE 'ingestcloud%'
"""


@pytest.mark.parametrize("way", [[], ["--backwards"]])
def test_the_sql_of_a_migration_says_which_tables_it_isolates_and_has_policies_only_on_postgresql(way):
    out = StringIO()
    call_command("sqlmigrate", "tenants", "0001", *way, stdout=out)
    assert "-- Isolate the rows of tenants and people in memberships\n" in out.getvalue()
    assert "-- Share auth_permission\n" in out.getvalue()
    assert ("POLICY" in out.getvalue()) == (connection.vendor == "postgresql")


@servers_only
def test_migrations_can_be_reversed_and_applied_again(plain_user, db):
    administrator, url = plain_user
    administrator.execute("GRANT ingestcloud_people TO ingestcloud_plain")
    assert manage(url, "migrate").returncode == 0
    with psycopg.connect(url, autocommit=True) as owner:
        before = set(owner.execute(SCHEMA))
        for app in ("ingest", "alerts", "devices", "tenants"):
            taken_back = manage(url, "migrate", app, "zero")
            assert taken_back.returncode == 0, taken_back.stderr
        left = {what for what, _ in owner.execute(SCHEMA)}
        assert left == {"column", "index"}
        assert not list(owner.execute("SELECT 1 WHERE to_regclass('tenants') IS NOT NULL"))
        assert manage(url, "migrate").returncode == 0
        assert set(owner.execute(SCHEMA)) == before


# The admin


@pytest.mark.parametrize("model", ISOLATED)
def test_staff_find_nothing_of_other_tenants_in_a_list(model, ours, theirs):
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
def test_a_list_that_forgets_its_filter_shows_nothing_of_other_tenants(model, ours, theirs, monkeypatch):
    monkeypatch.setattr(TenantScoped, "get_queryset", super(TenantScoped, TenantScoped).get_queryset, raising=True)
    page = ours.client().get(list_of(model))
    assert {type(row)(pk=row.pk) for row in page.context["cl"].result_list} == ours.all_of(model)


def addresses_of(model: type[Model], object_id: object) -> list[str]:
    """The addresses of all pages of the admin for `model`, including those of the row with `object_id`."""
    found = []
    for pattern in admin.site.get_model_admin(model).get_urls():
        if pattern.name is None:  # a redirect from the addresses of Django 1.8
            continue
        keys = dict.fromkeys(pattern.pattern.converters, object_id)
        found.append(reverse(f"admin:{pattern.name}", kwargs=keys))
    return found


FORM = {"status": "resolved", "name": "x", "overlap": 0, "label": "x", "usage_limit": 1, "slug": "x", "password1": "x"}


@pytest.mark.parametrize("model", ISOLATED)
def test_staff_cannot_open_or_change_pages_of_other_tenants(model, ours, theirs):
    client, row = ours.client(), theirs.row_of(model)
    mine = set(addresses_of(model, row.pk)) - set(addresses_of(model, 0))
    assert len(mine) >= 3
    with nothing_changes(theirs):
        for address in mine:
            for answer in (client.get(address), client.post(address, FORM)):
                assert answer.status_code in (302, 403, 404), address
                assert "theirs-" not in answer.text


@pytest.mark.parametrize("model", SUPERUSERS_ONLY)
def test_users_and_groups_are_only_for_superusers(model, ours, theirs):
    """Otherwise staff could give themselves every permission, and see the people of all tenants."""
    client = ours.client()
    before = list(User.objects.order_by("pk").values()), list(Group.objects.values())
    for address in addresses_of(model, theirs.row_of(model).pk) + addresses_of(model, ours.row_of(model).pk):
        form = FORM | {
            "username": "x",
            "is_superuser": "on",
            "is_staff": "on",
            "password2": "x",
            "usable_password": "true",
        }
        for answer in (client.get(address), client.post(address, form)):
            assert answer.status_code == 403 or answer["Location"] == "/admin/", address  # as if there were no such row
            assert "theirs-" not in answer.text
    assert (list(User.objects.order_by("pk").values()), list(Group.objects.values())) == before
    for label in (model._meta.verbose_name_plural.title(), f"/admin/auth/{model._meta.model_name}/"):
        assert label not in client.get(reverse("admin:index")).text
    superuser = Client()
    superuser.force_login(User.objects.create_superuser("root"))
    assert superuser.get(page_of(theirs.user)).status_code == 200


def test_staff_are_offered_no_users_and_cannot_change_members(ours, theirs):
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


def test_superusers_can_add_and_remove_members_on_the_tenants_page(ours, theirs):
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


def test_a_user_cannot_be_deleted_with_their_history(ours):
    superuser = Client()
    superuser.force_login(User.objects.create_superuser("root"))
    for address in (page_of(ours.user).replace("change", "delete"), list_of(User)):
        form = {"post": "yes", "action": "delete_selected", "_selected_action": [ours.user.pk]}
        superuser.post(address, form)
    assert User.objects.filter(pk=ours.user.pk).exists()


@pytest.mark.parametrize("model", admin.site._registry)
def test_staff_cannot_run_actions_on_rows_of_other_tenants(model, ours, theirs):
    """Tries every action, offered or not."""
    client = ours.client()
    page = client.get(list_of(model))
    if page.status_code == 200 and page.context["action_form"]:
        assert {name for name, _ in page.context["action_form"].fields["action"].choices if name} <= ACTIONS
    with nothing_changes(theirs):
        for action in ACTIONS:
            form = {
                "action": action,
                "_selected_action": [theirs.row_of(model).pk],
                "select_across": "1",
                "post": "yes",
            }
            answer = client.post(list_of(model), form, follow=True)
            assert answer.status_code == (403 if model in SUPERUSERS_ONLY else 200)
            assert "theirs-" not in answer.text.replace("theirs-staff", "")


def site_pages(side: Side) -> list[str]:
    """The pages of the admin that belong to no model, with every argument that could show something of `side`."""
    found = []
    for pattern in admin.site.get_urls():
        if not isinstance(pattern, URLPattern) or pattern.name is None:  # the pages of a model, and the catch-all
            continue
        asked: list[dict[str, object]] = [{}]
        if pattern.name == "app_list":
            asked = [{"app_label": label} for label in {model._meta.app_label for model in admin.site._registry}]
        elif pattern.pattern.converters:
            rows = (side.rows | side.people).items()
            asked = [
                dict(
                    zip(pattern.pattern.converters, (ContentType.objects.get_for_model(model).pk, row.pk), strict=True)
                )
                for model, row in rows
            ]
        found += [reverse(f"admin:{pattern.name}", kwargs=keys) for keys in asked]
    return found


def test_no_page_of_the_admin_shows_anything_of_other_tenants(ours, theirs):
    client, pages = ours.client(), site_pages(theirs)
    assert len(pages) > len(theirs.rows)
    fields = [
        (model, field.name) for model in apps.get_models() for field in (*model._meta.fields, *model._meta.many_to_many)
    ]
    offers = [
        {"app_label": model._meta.app_label, "model_name": model._meta.model_name, "field_name": name, "term": ""}
        for model, name in fields
    ]
    asked = [(page, query) for page in pages for query in ({}, {"s": "theirs", "extended": "1"})]
    asked += [("/admin/search/", {"s": "theirs", "extended": "1"})]
    asked += [(reverse("admin:autocomplete"), query) for query in offers]
    for page, query in asked:
        answer = client.get(page, query)
        assert answer.status_code in (200, 302, 403, 404, 405), (page, query)
        assert "theirs-" not in answer.text, (page, query)


def test_staff_are_offered_nothing_of_other_tenants(ours, theirs):
    client = ours.client()
    for model, field in ((Device, "tenant"), (ProvisioningKey, "tenant")):
        query = {"app_label": "devices", "model_name": model._meta.model_name, "field_name": field, "term": ""}
        offered = client.get(reverse("admin:autocomplete"), query).json()["results"]
        assert [each["id"] for each in offered] == [str(ours.tenant.pk)]
        form = {"tenant": theirs.tenant.pk, "name": "x", "label": "x", "usage_limit": 1}
        assert client.post(reverse(f"admin:devices_{model._meta.model_name}_add"), form).context["errors"]
    assert Device.objects.count() == ProvisioningKey.objects.count() == 2


def test_slugs_are_unique_across_all_tenants(ours, theirs):
    page = ours.client().post(reverse("admin:tenants_tenant_add"), {"slug": "theirs", "name": "x"})
    assert page.context["errors"]
    assert ours.client().post(reverse("admin:tenants_tenant_add"), {"slug": "new", "name": "x"}).status_code == 302
    assert set(Tenant.objects.for_user(ours.user).values_list("slug", flat=True)) == {"ours", "new"}


def test_the_front_page_of_the_admin_counts_nothing_of_other_tenants(ours, theirs):
    page = ours.client().get(reverse("admin:index"))
    assert "theirs-" not in page.text
    assert "of 1, 1 never seen" in {card.detail for card in page.context["cards"]}
    assert {card.value for card in page.context["cards"]} == {"0", "1", "never"}
    for chart in page.context["charts"]:
        assert "theirs" not in chart.data
        assert set(chart.totals.values()) <= {"0", "1"}
    [alerts, tenants] = page.context["tables"]
    assert [len(alerts.rows), [row[1] for row in tenants.rows]] == [1, ["1"]]


# Pages, sockets, devices


def test_the_console_shows_nothing_of_other_tenants(ours, theirs):
    client = ours.client()
    page, groups = client.get(f"{reverse('console')}?open={theirs.alert.group_id}"), client.get("/api/v1/groups")
    assert "ours-title" in groups.text
    assert "theirs" not in page.text + groups.text


def test_a_socket_is_sent_nothing_of_other_tenants(server, ours, theirs, log_in):
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


def test_the_batches_and_names_of_another_device_are_not_repeats(server, ours, theirs):
    body = json.dumps([log()]).encode()
    for side in (ours, theirs):
        headers = {"Idempotency-Key": "batch-1"}
        assert server.post(side.plaintext, content=body, headers=headers).status_code == 204
    assert set(IngestEvent.objects.order_by("-pk")[:2].values_list("tenant__name", flat=True)) == {"ours", "theirs"}


def test_a_provisioning_key_cannot_send_events(server, ours):
    assert_problem(server.post(ours.provisioning_plaintext, [log()]), 401, "invalid_device_key")
