"""The pages of the audit: who sees which entries, the filters, the histories of objects, and downloads."""

import csv
import io
import json
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from devices.models import Device, DeviceKey
from tenants.models import ActorKind, AuditEntry, Tenant, Verb
from tests.support.admin_pages import page_of, rows_shown
from tests.support.side import Side

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/tenants/auditentry/"


def the(verb: Verb) -> AuditEntry:
    return AuditEntry.objects.get(verb=verb)


@pytest.fixture
def root() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def ours() -> Side:
    return Side("ours")


# Who sees what


def test_staff_see_the_entries_of_their_tenants_and_none_of_the_site(ours):
    theirs = Side("theirs")
    client = ours.client()  # whose sign-in belongs to the site
    shown = set(rows_shown(client.get(LIST, {"all": ""})))
    assert shown == set(AuditEntry.objects.filter(tenant=ours.tenant).values_list("pk", flat=True))
    site = the(Verb.SIGNED_IN)
    for entry in (site, theirs.entry):
        assert client.get(page_of(entry)).status_code == 302
    exported = client.get(reverse("admin:audit_export_jsonl")).text
    assert {json.loads(line)["tenant"] for line in exported.splitlines()} == {"ours"}


def test_a_superuser_sees_all(root, ours):
    Side("theirs")
    shown = rows_shown(root.get(LIST))
    assert {AuditEntry.objects.get(pk=pk).tenant_id for pk in shown} == {
        None,
        *Tenant.objects.values_list("pk", flat=True),
    }
    for pk in shown:
        assert root.get(f"{LIST}{pk}/change/").status_code == 200


def test_without_the_permission_the_audit_is_not_shown(staff, tenant):
    client = staff("view_device", tenants=(tenant,))
    for address in (LIST, reverse("admin:audit_export_csv"), f"{LIST}{AuditEntry.objects.first().pk}/change/"):
        assert client.get(address).status_code == 403
    assert "Audit" not in client.get("/admin/").text


def test_nobody_can_add_change_or_delete_an_entry_on_a_page(root, tenant):
    entry = AuditEntry.objects.first()
    for address in (f"{LIST}add/", page_of(entry), page_of(entry).replace("change", "delete")):
        assert root.post(address, {"verb": "x", "post": "yes"}).status_code == 403
    assert AuditEntry.objects.filter(pk=entry.pk).exists()


@pytest.mark.parametrize(
    ("query", "verbs"),
    [
        ({"verb__exact": "device_key_issued"}, {"device_key_issued"}),
        ({"actor_kind__exact": "provisioning_key"}, {"device_registered"}),
        ({"actor_name": "GATE"}, {"device_registered"}),
        ({"actor_name": "gat"}, set()),
        ({"q": "press-9"}, {"device_key_issued"}),
        ({"q": "198.51.100.9"}, {"device_registered"}),
        ({"at_from_0": "2030-01-01"}, set()),
    ],
)
def test_filters_and_the_search(root, query, verbs):
    AuditEntry.objects.create(verb=Verb.DEVICE_KEY_ISSUED, actor_kind=ActorKind.USER, object_name="press-9")
    AuditEntry.objects.create(
        verb=Verb.DEVICE_REGISTERED, actor_kind=ActorKind.PROVISIONING_KEY, actor_name="gate", source="198.51.100.9"
    )
    found = AuditEntry.objects.filter(pk__in=rows_shown(root.get(LIST, query)))
    assert set(found.values_list("verb", flat=True)) == verbs
    exported = root.get(reverse("admin:audit_export_jsonl"), query).text.splitlines()
    assert {json.loads(line)["verb"] for line in exported} == verbs


def test_the_history_of_an_object_is_its_entries_and_those_of_what_it_owns(root, ours):
    other = Device.objects.create(tenant=ours.tenant, name="other")
    answer = root.get(page_of(ours.device).replace("/change/", "/history/"), follow=True)
    assert {AuditEntry.objects.get(pk=pk).verb for pk in rows_shown(answer)} == {
        "device_created",
        "device_changed",
        "device_key_issued",
    }
    assert other.pk not in {AuditEntry.objects.get(pk=pk).object_id for pk in rows_shown(answer)}


def test_the_history_of_an_object_has_its_oldest_entries(root, tenant, monkeypatch):
    device = Device.objects.create(tenant=tenant, name="first")
    monkeypatch.setattr("tenants.admin.bounded.MAX_SEARCHED_ROWS", 3)
    for number in range(5):
        Device.objects.create(tenant=tenant, name=f"press-{number}")
    assert len(rows_shown(root.get(LIST))) == 3
    assert len(rows_shown(root.get(LIST, {"object": f"devices.device-{device.pk}"}))) == 1


@pytest.mark.parametrize(
    "value", ["x", "-", "devices.device-", "devices.device-" + "9" * 30, "devices.device-²", "\x00-1"]
)
def test_an_object_that_there_is_not_has_no_entries(root, tenant, value):
    answer = root.get(LIST, {"object": value})
    assert answer.status_code in (200, 400)
    assert answer.status_code == 400 or rows_shown(answer) == []


def test_the_pages_of_a_device_and_its_keys_say_who_issued_them(root, tenant):
    call_command("create_device", tenant.slug, "press", stdout=StringIO())
    device = Device.objects.get()
    root.post(reverse("admin:devices_device_issue_key", args=[device.pk]))
    by_command, by_root = DeviceKey.objects.order_by("pk")
    for key, who in ((by_command, "Command create_device"), (by_root, "root")):
        entry = AuditEntry.objects.get(verb=Verb.DEVICE_KEY_ISSUED, object_id=key.pk)
        link = f'<a class="text-link" href="{page_of(entry)}">{entry.actor}</a>'
        assert who in entry.actor
        assert link in root.get(page_of(key)).text
        assert link in root.get(page_of(device)).text
    assert page_of(the(Verb.DEVICE_CREATED)) in root.get(page_of(device)).text


def test_a_key_from_before_the_audit_says_so(root, tenant):
    device = Device.objects.create(tenant=tenant, name="press")
    DeviceKey.objects.bulk_create([DeviceKey(device=device, prefix="dvc_old", digest="0" * 64)])
    assert "not recorded" in root.get(page_of(DeviceKey.objects.get())).text


# Downloads


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_the_csv_is_a_formula(root, start):
    AuditEntry.objects.create(verb=Verb.DEVICE_CHANGED, actor_kind=ActorKind.USER, object_name=f"{start}1+1")
    answer = root.get(reverse("admin:audit_export_csv"), {"verb__exact": "device_changed"})
    (row,) = csv.DictReader(io.StringIO(answer.text, newline=""))
    assert row["object_name"] == f"'{start}1+1"
    assert row["verb"] == "device_changed"


def test_json_lines_have_every_column(root, ours):
    answer = root.get(reverse("admin:audit_export_jsonl"), {"verb__exact": "device_changed"})
    (row,) = map(json.loads, answer.text.splitlines())
    assert answer["Content-Type"] == "application/jsonl"
    assert (row["actor_name"], row["tenant"], row["after"]) == ("ours-staff", "ours", {"location": "ours-hall"})
    assert row["before"] == {}


def test_a_download_is_recorded_for_each_tenant_in_it(root, ours):
    root.get(reverse("admin:audit_export_csv"), {"verb__exact": "device_created"})
    entry = the(Verb.AUDIT_EXPORTED)
    assert (entry.actor, entry.tenant) == ("root", ours.tenant)
    assert entry.after == {"entries": 1, "query": "verb__exact=device_created"}


def test_a_download_that_is_cut_off_says_so(root, monkeypatch, tenant):
    assert root.get(reverse("admin:audit_export_csv"))["X-Export-Cut"] == "no"
    monkeypatch.setattr("tenants.admin.audit.MAX_EXPORTED", 2)
    answer = root.get(reverse("admin:audit_export_csv"))
    assert (answer["X-Export-Cut"], len(answer.text.splitlines())) == ("yes", 3)


BAD_QUERIES = (
    {"nothing__of__this": "x"}, {"tenant__id__exact": "x"}, {"o": "x"}, {"p": "x"}, {"actor_name": "\x00"},
    {"q": "\x00"}, {"q": "x " * 20}, {"at_from_0": "9999-99-99"}, {"object": "\x00-1"}, {"verb__exact": "\x00"},
)  # fmt: skip


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_a_query_that_means_nothing_finds_nothing_or_is_ignored(root, query):
    for address in (LIST, reverse("admin:audit_export_csv"), reverse("admin:audit_export_jsonl")):
        assert root.get(address, query, follow=True).status_code in (200, 400)


def test_a_history_is_offered_to_those_who_may_see_the_audit(ours, staff):
    assert "/history/" in ours.client().get(page_of(ours.device)).text
    assert "/history/" not in ours.client().get(page_of(ours.event)).text  # nobody changes an event
    others = staff("view_device", tenants=(ours.tenant,))
    assert "/history/" not in others.get(page_of(ours.device)).text


def test_the_links_to_downloads_have_the_filter_of_the_list(root, tenant):
    text = root.get(LIST, {"verb__exact": "tenant_created", "q": "a&b"}).text
    for kind in ("csv", "jsonl"):
        assert f'href="{LIST}export/{kind}/?verb__exact=tenant_created&amp;q=a%26b"' in text
