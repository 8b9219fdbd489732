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
from django.contrib.auth.models import Permission, User
from django.db import ProgrammingError, connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from alerts.models import SecurityAlert
from devices.admin_tools import TenantScoped
from devices.isolation import acting_as, as_ourselves
from devices.models import Device, DeviceKey, ProvisioningKey, Tenant
from ingest.models import IngestBatch, IngestEvent, RejectedBatch
from tests.admin_pages import list_of, page_of
from tests.events import alert, log
from tests.live import ROOT
from tests.problems import assert_problem
from tests.servers import servers_only
from tests.test_socket import ping, receive

pytestmark = pytest.mark.django_db(transaction=True)

ISOLATED = [Tenant, Device, DeviceKey, ProvisioningKey, IngestBatch, IngestEvent, RejectedBatch, SecurityAlert]
DETAIL_PAGES = {
    Device: ["issue_key"],
    DeviceKey: ["rotate", "revoke"],
    ProvisioningKey: ["revoke"],
    RejectedBatch: ["send_again", "download"],
}
ACTIONS = {
    DeviceKey: ["revoke_selected"],
    ProvisioningKey: ["revoke_selected"],
    SecurityAlert: ["acknowledge", "resolve", "reopen"],
}


class Side:
    """A tenant with a row of each kind, each of which bears its name."""

    def __init__(self, name: str) -> None:
        now = timezone.now()
        self.name = name
        self.tenant = Tenant.objects.create(slug=name, name=name)
        self.device = Device.objects.create(tenant=self.tenant, name=f"{name}-press")
        self.key, self.plaintext = DeviceKey.objects.issue(self.device)
        self.provisioning_key, self.provisioning_plaintext = ProvisioningKey.objects.issue(self.tenant, f"{name}-hall")
        owner = {"tenant": self.tenant, "device": self.device, "received_at": now}
        digest = name.encode().ljust(32)
        self.batch = IngestBatch.objects.create(
            digest=digest, event_count=1, alert_count=1, byte_count=9, idempotency_key=f"{name}-1", **owner
        )
        self.event = IngestEvent.objects.create(
            batch=self.batch, kind="log", timestamp=now, data={"message": f"{name}-message"}, **owner
        )
        self.alert = SecurityAlert.objects.create(
            batch_id=self.batch.pk, timestamp=now, title=f"{name}-title", severity="high", **owner
        )
        self.rejected = RejectedBatch.objects.create(
            status=400, code="invalid_events", detail=f"{name}-detail", digest=digest, body=b"[]", byte_count=2,
            first_received_at=now, **owner,
        )  # fmt: skip
        self.rows = {
            type(row): row
            for row in (
                self.tenant, self.device, self.key, self.provisioning_key, self.batch, self.event, self.alert,
                self.rejected,
            )
        }  # fmt: skip
        # Staff that may do everything that there is to do, for this tenant.
        self.user = User.objects.create_user(f"{name}-staff", is_staff=True)
        self.user.user_permissions.set(
            Permission.objects.filter(content_type__app_label__in=("devices", "alerts", "ingest"))
        )
        self.user.tenants.add(self.tenant)

    def client(self) -> Client:
        client = Client()
        client.force_login(self.user)
        return client

    def state(self) -> list[dict[str, object]]:
        """All that is stored of it."""
        return [type(row).objects.filter(pk=row.pk).values().get() for row in self.rows.values()]


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


@servers_only
def test_every_table_with_a_tenant_has_a_policy():
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relrowsecurity")
        protected = {name for (name,) in cursor.fetchall()}
    assert protected == {model._meta.db_table for model in ISOLATED}
    related = {Tenant, Device, IngestBatch}
    for model in apps.get_models():
        if any(field.related_model in related for field in model._meta.fields):
            assert model in ISOLATED


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
            with as_ourselves():
                assert Device.objects.count() == 2
            assert Device.objects.count() == 1
            with pytest.raises(LookupError), as_ourselves():
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
        assert as_people.execute("SELECT count(*) FROM devices_tenant").fetchone() == (1,)
        as_people.execute("SET ROLE ingestcloud_people")
        assert as_people.execute("SELECT count(*) FROM devices_tenant").fetchone() == (0,)


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


@pytest.mark.parametrize("model", ISOLATED)
def test_staff_open_and_change_no_page_of_others(model, ours, theirs):
    client, row = ours.client(), theirs.rows[model]
    opts = model._meta
    addresses = [page_of(row), page_of(row).replace("change", "history"), page_of(row).replace("change", "delete")]
    addresses += [
        reverse(f"admin:{opts.app_label}_{opts.model_name}_{name}", args=[row.pk])
        for name in DETAIL_PAGES.get(model, [])
    ]
    with nothing_changes(theirs):
        for address in addresses:
            for answer in (
                client.get(address),
                client.post(address, {"status": "resolved", "name": "x", "overlap": 0}),
            ):
                assert answer.status_code in (302, 403, 404), address
                assert "theirs-" not in answer.text


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
    page = ours.client().post(reverse("admin:devices_tenant_add"), {"slug": "theirs", "name": "x"})
    assert page.context["errors"]
    assert ours.client().post(reverse("admin:devices_tenant_add"), {"slug": "new", "name": "x"}).status_code == 302
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
