"""The audit: everything that people and commands do is recorded, and nobody can change the record."""

import json
import re
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.db import DatabaseError, connection, connections, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from alerts.api.groups import represented
from alerts.models import SuppressionRule
from devices.models import Device, DeviceKey, ProvisioningKey
from ingestcloud.login import logins
from tenants import audit, sign_ins
from tenants.isolation import acting_as
from tenants.models import ActorKind, AuditEntry, Membership, Role, Tenant, Verb
from tests.support.admin_pages import list_of, page_of
from tests.support.audit import TABLE
from tests.support.events import log
from tests.support.servers import embedded_only, servers_only
from tests.support.side import Side

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = "correct horse battery"
SOURCE = "192.0.2.7"


def entries(*verbs: Verb) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(verb__in=verbs).order_by("pk"))


def the(verb: Verb) -> AuditEntry:
    return AuditEntry.objects.get(verb=verb)


def whole_table() -> str:
    return json.dumps(list(AuditEntry.objects.values()), default=str)


@pytest.fixture
def root() -> Client:
    """A superuser, named root, behind a proxy that gives each request an id."""
    client = Client(REMOTE_ADDR=SOURCE, headers={"X-Request-ID": "req-1"})
    client.force_login(User.objects.create_superuser("root", password=PASSWORD))
    return client


@pytest.fixture
def ours() -> Side:
    return Side("ours")


# Who, from where


def test_an_entry_says_who_did_what_to_what_when_and_from_where(root, tenant):
    before = timezone.now()
    root.post(reverse("admin:devices_device_add"), {"tenant": tenant.pk, "name": "press", "location": "Hall 3"})
    device, entry = Device.objects.get(), the(Verb.DEVICE_CREATED)
    assert (entry.actor_kind, entry.actor_name) == (ActorKind.USER, "root")
    assert entry.actor_id == User.objects.get().pk
    assert (entry.source, entry.request_id, entry.tenant) == (SOURCE, "req-1", tenant)
    assert (entry.object_type, entry.object_id, entry.object_name) == ("devices.device", device.pk, "press")
    assert (entry.before, entry.after) == ({}, {"name": "press", "location": "Hall 3"})
    assert before <= entry.at <= timezone.now()


@pytest.mark.parametrize("given", ["x" * 65, "a b", "é", "<script>"])
def test_a_request_id_that_is_none_is_left_out(root, tenant, given):
    root.post(reverse("admin:devices_device_add"), {"tenant": tenant.pk, "name": "x"}, headers={"X-Request-ID": given})
    assert the(Verb.DEVICE_CREATED).request_id == ""


def test_an_address_that_is_none_is_left_out(root, tenant):
    root.post(reverse("admin:devices_device_add"), {"tenant": tenant.pk, "name": "x"}, REMOTE_ADDR="unknown")
    assert the(Verb.DEVICE_CREATED).source is None


def test_commands_are_recorded_with_the_user_who_runs_them():
    out = StringIO()
    call_command("create_tenant", "acme", "--module", "backup", stdout=out)
    call_command("create_tenant", "acme", "--name", "Acme", "--retention-days", "30", stdout=out)
    call_command("create_device", "acme", "press", stdout=out)
    call_command("create_provisioning_key", "acme", "Hall 3", "--uses", "5", stdout=out)
    made = AuditEntry.objects.order_by("pk")
    assert [(each.verb, each.actor_name.partition(" (")[0]) for each in made] == [
        ("tenant_created", "create_tenant"),
        ("tenant_changed", "create_tenant"),
        ("device_created", "create_device"),
        ("device_key_issued", "create_device"),
        ("provisioning_key_issued", "create_provisioning_key"),
    ]
    assert {each.actor_kind for each in made} == {ActorKind.COMMAND}
    assert all(re.search(r" \(.+\)$", each.actor_name) for each in made)
    assert (made[1].before, made[1].after) == (
        {"name": "acme", "retention_days": None},
        {"name": "Acme", "retention_days": 30},
    )
    for plaintext in re.findall(r"(?:dvc|prv)_[\w-]{43}", out.getvalue()):
        assert plaintext not in whole_table()
        assert DeviceKey.objects.first().digest not in whole_table()


def test_what_changes_nothing_is_not_recorded(tenant):
    count = AuditEntry.objects.count()
    call_command("create_tenant", tenant.slug, stdout=StringIO())
    tenant.save()
    assert AuditEntry.objects.count() == count


# Devices and keys


def test_the_life_of_a_device_key(root, ours):
    answer = root.post(reverse("admin:devices_device_issue_key", args=[ours.device.pk]))
    plaintext = re.search(r"dvc_[\w-]{43}", answer.text)[0]
    key = DeviceKey.objects.exclude(pk=ours.key.pk).get()
    root.post(reverse("admin:devices_devicekey_rotate", args=[key.pk]), {"overlap": 2})
    successor = DeviceKey.objects.latest("pk")
    root.post(reverse("admin:devices_devicekey_revoke", args=[key.pk]))
    root.post(list_of(DeviceKey), {"action": "revoke_selected", "_selected_action": [successor.pk]})
    key.refresh_from_db()
    found = [
        (each.verb, each.object_name)
        for each in AuditEntry.objects.filter(object_type="devices.devicekey", actor_name="root").order_by("pk")
    ]
    assert found == [
        ("device_key_issued", str(key)),
        ("device_key_issued", str(successor)),
        ("device_key_rotated", str(key)),
        ("device_key_revoked", str(key)),
        ("device_key_revoked", str(successor)),
    ]
    rotated = the(Verb.DEVICE_KEY_ROTATED)
    assert (rotated.before, rotated.after["successor"]) == ({"expires_at": None}, str(successor))
    assert rotated.after["expires_at"][:16] == key.expires_at.isoformat()[:16]
    assert (rotated.tenant, rotated.owner_type, rotated.owner_id) == (ours.tenant, "devices.device", ours.device.pk)
    secrets = [plaintext, *DeviceKey.objects.values_list("digest", flat=True)]
    assert not [secret for secret in secrets if secret in whole_table()]


def test_a_device_is_changed(root, ours):
    root.post(page_of(ours.device), {"name": "ours-press", "location": "Hall 4", "burst": 5})
    changed = AuditEntry.objects.get(verb=Verb.DEVICE_CHANGED, actor_name="root")
    assert (changed.before, changed.after) == ({"location": "", "burst": None}, {"location": "Hall 4", "burst": 5})


def test_a_device_registers_with_a_provisioning_key_that_staff_made(root, tenant):
    form = {"tenant": tenant.pk, "label": "Hall 3", "usage_limit": 2, "expires_at_0": "", "expires_at_1": ""}
    answer = root.post(reverse("admin:devices_provisioningkey_add"), form)
    plaintext = re.search(r"prv_[\w-]{43}", answer.text)[0]
    made = the(Verb.PROVISIONING_KEY_ISSUED)
    assert (made.actor, made.tenant, made.after) == ("root", tenant, {"label": "Hall 3", "usage_limit": 2})

    headers = {"X-Provisioning-Key": plaintext}
    device = Client(REMOTE_ADDR="198.51.100.1", headers=headers)
    answer = device.post(reverse("register"), {"name": "press"}, content_type="application/json")
    assert answer.status_code == 201
    key = ProvisioningKey.objects.get()
    for entry in (the(Verb.DEVICE_REGISTERED), the(Verb.DEVICE_KEY_ISSUED)):
        assert (entry.actor_kind, entry.actor_id) == (ActorKind.PROVISIONING_KEY, key.pk)
        assert entry.actor == f"Provisioning key {key} (Hall 3)"
        assert (entry.source, entry.tenant) == ("198.51.100.1", tenant)

    root.post(reverse("admin:devices_provisioningkey_revoke", args=[key.pk]))
    assert (the(Verb.PROVISIONING_KEY_REVOKED).actor, the(Verb.PROVISIONING_KEY_REVOKED).object_id) == ("root", key.pk)
    for secret in (plaintext, key.digest, answer.json()["device_key"]):
        assert secret not in whole_table()


def test_batches_add_nothing_to_the_audit(server, key):
    count = AuditEntry.objects.count()
    assert server.post(key, [log()]).status_code == 204
    assert AuditEntry.objects.count() == count


# Tenants and members


NO_MEMBERS = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}


def test_the_modules_and_the_retention_of_a_tenant(root, make_tenant):
    tenant = make_tenant(slug="acme")
    form = {"slug": "acme", "name": "Acme", "backup_enabled": "on", "retention_days": 30} | NO_MEMBERS
    assert root.post(page_of(tenant), form).status_code == 302
    changed = the(Verb.TENANT_CHANGED)
    assert (changed.before, changed.after) == (
        {"backup_enabled": False, "retention_days": None},
        {"backup_enabled": True, "retention_days": 30},
    )
    assert changed.tenant == tenant


def test_members_are_added_changed_and_removed_on_their_page(ours):
    Membership.objects.update(role=Role.ADMIN)
    User.objects.create_user("ana")
    client = ours.client()
    client.post("/members/", {"name": "ana", "role": "viewer"})
    ana = Membership.objects.get(user__username="ana")
    client.post("/members/", {"member": ana.pk, "role": "analyst"})
    client.post("/members/", {"remove": ana.pk})
    found = entries(Verb.MEMBER_ADDED, Verb.MEMBER_CHANGED, Verb.MEMBER_REMOVED)[-3:]
    assert [(each.before, each.after) for each in found] == [
        ({}, {"user": "ana", "role": "viewer"}),
        ({"role": "viewer"}, {"role": "analyst"}),
        ({"user": "ana", "role": "analyst"}, {}),
    ]
    assert {(each.actor, each.object_name, each.tenant) for each in found} == {
        ("ours-staff", "ana of ours", ours.tenant)
    }


def test_an_admin_of_a_tenant_may_remove_themselves(ours):
    """The entry is written while they are still a member."""
    Membership.objects.create(tenant=ours.tenant, user=User.objects.create_user("ana"), role=Role.ADMIN)
    own = Membership.objects.get(user=ours.user)
    Membership.objects.update(role=Role.ADMIN)
    assert ours.client().post("/members/", {"remove": own.pk}).status_code == 302
    assert the(Verb.MEMBER_REMOVED).actor == "ours-staff"


def test_members_that_are_added_in_a_shell_are_recorded_too(tenant):
    ana, ben = User.objects.create_user("ana"), User.objects.create_user("ben")
    tenant.members.add(ana)
    ben.tenants.set([tenant])
    tenant.members.remove(ana)
    assert [each.object_name for each in entries(Verb.MEMBER_ADDED)] == [f"ana of {tenant}", f"ben of {tenant}"]
    assert the(Verb.MEMBER_REMOVED).object_name == f"ana of {tenant}"
    assert {each.actor_kind for each in entries(Verb.MEMBER_ADDED)} == {ActorKind.COMMAND}


# Users and groups


def test_what_a_superuser_does_to_users(root):
    form = {"username": "ana", "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}
    assert root.post(reverse("admin:auth_user_add"), form).status_code == 302
    ana = User.objects.get(username="ana")
    permission = Permission.objects.get(codename="view_device")
    group = Group.objects.create(name="night shift")
    dates = {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    form = {"username": "ana", "is_active": "on", "is_staff": "on", "is_superuser": "on"} | dates
    form |= {"groups": [group.pk], "user_permissions": [permission.pk]}
    assert root.post(page_of(ana), form).status_code == 302
    form |= {"groups": [], "user_permissions": []}
    assert root.post(page_of(ana), form).status_code == 302
    form = {"usable_password": "true", "password1": f"{PASSWORD} 2", "password2": f"{PASSWORD} 2"}
    assert root.post(reverse("admin:auth_user_password_change", args=[ana.pk]), form).status_code == 302

    created = AuditEntry.objects.get(verb=Verb.USER_CREATED, object_name="ana")
    assert (created.actor, created.after) == ("root", {"username": "ana", "is_active": True})
    changed = [(each.before, each.after) for each in entries(Verb.USER_CHANGED)]
    assert changed == [
        ({"is_staff": False, "is_superuser": False}, {"is_staff": True, "is_superuser": True}),
        ({}, {"groups": ["night shift"]}),
        ({}, {"user_permissions": ["devices.view_device"]}),
        ({"groups": ["night shift"]}, {}),
        ({"user_permissions": ["devices.view_device"]}, {}),
    ]
    password = the(Verb.PASSWORD_SET)
    assert (password.actor, password.object_name, password.before, password.after) == ("root", "ana", {}, {})
    ana.refresh_from_db()
    assert PASSWORD not in whole_table()
    assert ana.password not in whole_table()
    assert "argon2" not in whole_table()


def test_groups_of_users_are_made_changed_and_deleted(root):
    permission = Permission.objects.get(codename="view_device")
    root.post(reverse("admin:auth_group_add"), {"name": "night"})
    group = Group.objects.get()
    root.post(page_of(group), {"name": "night shift", "permissions": [permission.pk]})
    root.post(reverse("admin:auth_group_delete", args=[group.pk]), {"post": "yes"})
    found = entries(Verb.GROUP_CREATED, Verb.GROUP_CHANGED, Verb.GROUP_DELETED)
    assert [(each.before, each.after) for each in found] == [
        ({}, {"name": "night"}),
        ({"name": "night"}, {"name": "night shift"}),
        ({}, {"permissions": ["devices.view_device"]}),
        ({"name": "night shift"}, {}),
    ]


def test_a_relation_is_recorded_from_its_other_side_too():
    ana, group = User.objects.create_user("ana"), Group.objects.create(name="night")
    group.user_set.add(ana)
    group.user_set.clear()
    assert [(each.object_name, each.before, each.after) for each in entries(Verb.USER_CHANGED)] == [
        ("ana", {}, {"groups": ["night"]}),
        ("ana", {"groups": ["night"]}, {}),
    ]


def test_users_set_their_own_password():
    User.objects.create_user("ana", password=PASSWORD)
    client = Client()
    client.post(reverse("login"), {"username": "ana", "password": PASSWORD})
    new = "a quite different one"
    form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    assert client.post(reverse("change_password"), form).status_code == 302
    assert (the(Verb.PASSWORD_SET).actor, the(Verb.PASSWORD_SET).object_name) == ("ana", "ana")
    assert new not in whole_table()


def test_a_password_that_is_hashed_anew_at_a_login_is_not_set():
    User.objects.create_user("ana")
    User.objects.update(password=make_password(PASSWORD, hasher="pbkdf2_sha256"))
    assert Client().post(reverse("login"), {"username": "ana", "password": PASSWORD}).status_code == 302
    assert User.objects.get().password.startswith("argon2$")
    assert [each.verb for each in AuditEntry.objects.exclude(verb=Verb.USER_CREATED)] == ["signed_in"]


def test_an_entry_outlives_the_user_who_did_it_and_the_object(root):
    ana = User.objects.create_user("ana")
    root.post(page_of(ana), {"username": "anna", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"})
    User.objects.all().delete()
    assert [each.object_name for each in entries(Verb.USER_DELETED)] == ["root", "anna"]
    renamed = the(Verb.USER_CHANGED)
    assert (renamed.actor, renamed.object_id, renamed.before["username"]) == ("root", ana.pk, "ana")


# Signing in and out


def sign_in(name: str, password: str, source: str = SOURCE, url: str = "login"):
    return Client(REMOTE_ADDR=source).post(reverse(url), {"username": name, "password": password})


def test_signing_in_and_out():
    User.objects.create_user("ana", password=PASSWORD, is_staff=True)
    for login, logout in (("login", "logout"), ("admin:login", "admin:logout")):
        client = Client(REMOTE_ADDR=SOURCE)
        client.post(reverse(login), {"username": "ana", "password": PASSWORD})
        client.post(reverse(logout))
    found = entries(Verb.SIGNED_IN, Verb.SIGNED_OUT)
    assert [each.verb for each in found] == ["signed_in", "signed_out"] * 2
    assert {(each.actor, each.source, each.object_name, each.tenant) for each in found} == {
        ("ana", SOURCE, "ana", None)
    }


@pytest.fixture
def within_a_minute(monkeypatch):
    monkeypatch.setattr(sign_ins, "this_minute", lambda: 1)


def test_failures_name_the_account_that_exists_and_no_other_text(within_a_minute):
    """People type their password into the field for the name."""
    User.objects.create_user("ana", password=PASSWORD)
    sign_in("ana", "wrong")
    sign_in(PASSWORD, "x")
    sign_in("ana", PASSWORD, url="admin:login")
    found = entries(Verb.SIGN_IN_FAILED)
    assert [(each.object_name, each.after["reason"]) for each in found] == [
        ("ana", "wrong password"),
        ("", "no such user"),
    ]
    assert {(each.actor, each.source) for each in found} == {("Nobody", SOURCE)}
    assert PASSWORD not in whole_table()


def test_a_correct_password_of_somebody_who_is_not_staff_is_a_failure_in_the_admin():
    User.objects.create_user("ana", password=PASSWORD)
    sign_in("ana", PASSWORD, url="admin:login")
    assert the(Verb.SIGN_IN_FAILED).after == {"reason": "not staff"}


def test_a_storm_of_failures_from_one_address_is_counted(within_a_minute):
    User.objects.create_user("ana", password=PASSWORD)
    for _ in range(25):
        logins.clear()
        sign_in("ana", "wrong")
    assert [each.after.get("failures_this_minute") for each in entries(Verb.SIGN_IN_FAILED)] == [None, 10]


def test_a_storm_of_failures_from_everywhere_is_bounded(within_a_minute, monkeypatch):
    monkeypatch.setattr(sign_ins, "MAX_KEYS", 3)
    for number in range(20):
        sign_in("nobody", "wrong", f"198.51.100.{number}")
    found = [(each.after.get("failures_this_minute"), "from" in each.after) for each in entries(Verb.SIGN_IN_FAILED)]
    assert found == [(None, False)] * 3 + [(None, True), (10, True)]


def test_each_minute_counts_anew(monkeypatch):
    for minute in (0, 1):
        monkeypatch.setattr(sign_ins, "this_minute", lambda minute=minute: minute)
        for _ in range(3):
            sign_in("nobody", "wrong")
    assert len(entries(Verb.SIGN_IN_FAILED)) == 2


# Alerts and batches


def test_suppression_rules_are_made_and_ended(ours):
    client = ours.client()
    ends_at = timezone.now() + timedelta(days=1)
    rule = {"tenant": "ours", "title": "Port scan", "worst_severity": "low", "reason": "ours too", "ends_at": ends_at}
    made = client.post("/api/v1/suppressions", rule, content_type="application/json")
    assert made.status_code == 201, made.text
    for _ in range(2):
        client.post(f"/api/v1/suppressions/{made.json()['id']}/end", content_type="application/json")
    first = AuditEntry.objects.get(verb=Verb.SUPPRESSION_RULE_MADE, object_id=made.json()["id"])
    assert (first.actor, first.tenant, first.after["title"]) == ("ours-staff", ours.tenant, "Port scan")
    ended = the(Verb.SUPPRESSION_RULE_ENDED)
    assert ended.object_type == SuppressionRule._meta.label_lower
    assert ended.before["ends_at"][:19] == ends_at.isoformat()[:19]


def test_an_export_is_recorded_for_each_tenant_whose_groups_it_has(ours, root):
    theirs = Side("theirs")
    assert root.get("/api/v1/groups/export?format=csv&severity=high").status_code == 200
    assert ours.client().get("/api/v1/groups/export?format=json").status_code == 200
    found = [(each.actor, each.tenant, each.after["groups"]) for each in entries(Verb.ALERTS_EXPORTED)]
    assert sorted(found, key=str) == sorted(
        [("root", ours.tenant, 1), ("root", theirs.tenant, 1), ("ours-staff", ours.tenant, 1)], key=str
    )
    assert entries(Verb.ALERTS_EXPORTED)[0].after["query"] == "format=csv&severity=high"


def test_a_rejected_batch_is_downloaded(ours):
    ours.client().get(reverse("admin:ingest_rejectedbatch_download", args=[ours.rejected.pk]))
    entry = the(Verb.REJECTED_BATCH_DOWNLOADED)
    assert (entry.actor, entry.object_id, entry.tenant) == ("ours-staff", ours.rejected.pk, ours.tenant)


@embedded_only
def test_a_download_is_not_refused_because_somebody_writes_meanwhile(ours, monkeypatch):
    """On SQLite a transaction that has read can't write once another has written."""
    threads = ThreadPoolExecutor()

    def write() -> None:
        try:
            Tenant.objects.filter(slug="ours").update(name="by another")
        finally:
            connections.close_all()

    def represented_meanwhile(ids):
        writes.append(threads.submit(write))
        wait(writes, timeout=0.5)
        return represented(ids)

    writes: list[Future] = []
    monkeypatch.setattr("alerts.api.export.represented", represented_meanwhile)
    assert ours.client().get("/api/v1/groups/export?format=csv").status_code == 200
    threads.shutdown()
    writes[0].result()
    assert Tenant.objects.get().name == "by another"


# One transaction


def test_a_change_that_fails_leaves_no_entry(tenant):
    count = AuditEntry.objects.count()
    with transaction.atomic():
        device = Device.objects.create(tenant=tenant, name="press")
        assert AuditEntry.objects.filter(object_id=device.pk, verb=Verb.DEVICE_CREATED).exists()
        transaction.set_rollback(True)
    assert AuditEntry.objects.count() == count


def refuse_entries(monkeypatch):
    def fail(*arguments, **keywords):
        raise DatabaseError("the disk is full")

    monkeypatch.setattr(AuditEntry, "save", fail)


@pytest.mark.parametrize("make", ["a user", "a device", "a key", "a provisioning key"])
def test_what_cannot_be_recorded_is_not_done(tenant, monkeypatch, make):
    """Also outside a transaction, as in a shell and in `createsuperuser`."""
    device = Device.objects.create(tenant=tenant, name="press")
    refuse_entries(monkeypatch)
    makers = {
        "a user": lambda: User.objects.create_superuser("root"),
        "a device": lambda: Device.objects.create(tenant=tenant, name="other"),
        "a key": lambda: DeviceKey.objects.issue(device),
        "a provisioning key": lambda: ProvisioningKey.objects.issue(tenant, "Hall"),
    }
    with pytest.raises(DatabaseError):
        makers[make]()
    assert not User.objects.exists()
    assert not DeviceKey.objects.exists()
    assert not ProvisioningKey.objects.exists()
    assert Device.objects.count() == 1


def test_a_member_who_cannot_be_recorded_is_not_removed(ours, monkeypatch):
    refuse_entries(monkeypatch)
    membership = Membership.objects.get()
    with pytest.raises(DatabaseError):
        membership.delete()
    assert Membership.objects.exists()


# Only added to


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE {TABLE} SET actor_name = 'somebody else'",
        f"DELETE FROM {TABLE}",
        pytest.param(f"TRUNCATE {TABLE}", marks=servers_only),
    ],
)
def test_the_owner_of_the_table_cannot_rewrite_it(tenant, statement):
    before = whole_table()
    with pytest.raises(DatabaseError, match="only added to"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert whole_table() == before


@servers_only
@pytest.mark.parametrize("statement", [f"UPDATE {TABLE} SET id = id", f"DELETE FROM {TABLE}", f"TRUNCATE {TABLE}"])
def test_pages_may_only_add_and_read(ours, statement):
    for user in (ours.user, User.objects.create_superuser("root")):
        with pytest.raises(DatabaseError, match="permission denied"), acting_as(user), connection.cursor() as cursor:
            cursor.execute(statement)


@servers_only
def test_nobody_can_record_something_in_the_name_of_another(ours):
    for actor in (
        audit.Actor(ActorKind.USER, ours.user.pk + 1, "somebody"),
        audit.Actor(ActorKind.COMMAND, None, "create_device"),
        audit.Actor(ActorKind.NOBODY),
    ):
        with pytest.raises(DatabaseError, match="row-level security"), acting_as(ours.user):
            audit.record(Verb.DEVICE_CHANGED, ours.device, actor=actor)


def test_old_sign_ins_are_deleted_and_everything_else_is_kept(tenant):
    now = timezone.now()
    old, recent = now - audit.SIGN_INS_KEPT - timedelta(days=1), now - audit.SIGN_INS_KEPT + timedelta(days=1)
    for verb in (Verb.SIGNED_IN, Verb.SIGN_IN_FAILED, Verb.SIGNED_OUT, Verb.DEVICE_KEY_ISSUED):
        for at in (old, recent):
            AuditEntry.objects.create(at=at, verb=verb, actor_kind=ActorKind.NOBODY)
    out = StringIO()
    call_command("maintain", stdout=out)
    assert "Deleted 3 audit entries about sign-ins." in out.getvalue()
    assert [each.verb for each in AuditEntry.objects.filter(at=old)] == ["device_key_issued"]
    assert AuditEntry.objects.filter(at=recent).count() == 4


def test_sign_ins_of_the_last_year_cannot_be_deleted_even_by_the_owner():
    AuditEntry.objects.create(at=timezone.now() - timedelta(days=360), verb=Verb.SIGNED_IN, actor_kind=ActorKind.NOBODY)
    with pytest.raises(DatabaseError, match="only added to"):
        AuditEntry.objects.all().delete()
