"""Lists of the admin as files, made in the background."""

import csv
import io
import json
import threading
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from alerts.models import SecurityAlert
from devices.models import Device, DeviceKey
from exports import work
from exports.models import KEPT, ListExport, ListExportPart
from exports.work import continue_exports, take_step
from ingest.models import IngestBatch, IngestEvent, RejectedBatch
from tenants.models import AuditEntry, Tenant, Verb
from tests.support.admin_pages import list_of, page_of, rows_shown
from tests.support.side import Side

pytestmark = pytest.mark.django_db(transaction=True)

START = "/admin/exports/listexport/start/"
LIST = "/admin/exports/listexport/"


@pytest.fixture
def root() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def small(monkeypatch):
    """Few rows at a time, so that each step reads a few of them."""
    monkeypatch.setattr("exports.reading.CHUNK_ROWS", 2)
    monkeypatch.setattr(work, "STEP_SECONDS", 0)


def start(client: Client, model: type, query: str = "", kind: str = "csv") -> HttpResponse:
    return client.post(START, {"list": model._meta.label_lower, "query": query, "format": kind}, follow=True)


def export(client: Client, model: type, query: str = "", kind: str = "csv") -> ListExport:
    """A finished export."""
    start(client, model, query, kind)
    continue_exports()
    made = ListExport.objects.latest("pk")
    assert made.finished_at
    return made


def download(client: Client, made: ListExport, file: int = 1) -> HttpResponse:
    return client.get(f"{LIST}{made.pk}/body/{file}/")


def rows(client: Client, made: ListExport) -> list[dict[str, str]]:
    """The rows of all files."""
    found = []
    for file in range(1, made.files + 1):
        text = download(client, made, file).text
        if made.format == "csv":
            found += list(csv.DictReader(io.StringIO(text)))
        else:
            found += [json.loads(line) for line in text.splitlines()]
    return found


def ids(client: Client, made: ListExport) -> list[int]:
    return [int(row["id"]) for row in rows(client, made)]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "model", [IngestEvent, IngestBatch, SecurityAlert, RejectedBatch, Device, DeviceKey, Tenant, User]
)
def test_a_file_has_the_rows_of_the_list_and_nothing_secret(root, model, kind):
    ours, theirs = Side("ours"), Side("theirs")
    User.objects.filter(pk=ours.user.pk).update(password="argon2$secret-hash")
    made = export(root, model, kind=kind)
    assert sorted(ids(root, made)) == sorted(model.objects.values_list("pk", flat=True))
    text = download(root, made).text
    for secret in ("secret-hash", "digest", ours.key.digest, theirs.key.digest, '"body"'):
        assert secret not in text
    assert made.rows == model.objects.count()
    assert "no-store" in download(root, made)["Cache-Control"]


def test_a_row_has_what_it_refers_to_by_id_and_name(root, store, device_key):
    event = store()[0]
    (row,) = rows(root, export(root, IngestEvent, kind="jsonl"))
    device = device_key.device
    assert (row["device_id"], row["device"]) == (device.pk, str(device))
    assert (row["tenant_id"], row["tenant"]) == (device.tenant_id, str(device.tenant))
    assert (row["id"], row["batch_id"], row["kind"], row["data"]) == (event.pk, event.batch_id, event.kind, event.data)
    assert row["received_at"] == event.received_at.isoformat()
    assert "batch" not in row


def test_no_cell_is_a_formula(root, make_tenant):
    Device.objects.create(tenant=make_tenant(), name="=cmd|' /C calc'!A0")
    assert [row["name"] for row in rows(root, export(root, Device))] == ["'=cmd|' /C calc'!A0"]
    assert [row["name"] for row in rows(root, export(root, Device, kind="jsonl"))] == ["=cmd|' /C calc'!A0"]


def test_only_the_rows_that_pass_the_filters_and_the_search_are_exported(root, make_alert):
    wanted = make_alert(title="Port scan", severity="high").pk
    make_alert(title="Port scan of another", severity="low")
    make_alert(title="Malware", severity="high")
    query = "severity__exact=high&q=scan&before=5&p=7&all="
    assert ids(root, export(root, SecurityAlert, query)) == [wanted]


@pytest.mark.parametrize("of_device", [False, True])
def test_an_export_is_made_in_steps_of_which_each_goes_on_where_the_last_ended(
    root, store, device_key, small, of_device
):
    events = [event.pk for _ in range(3) for event in store(3)]
    query = f"device__id__exact={device_key.device_id}" if of_device else ""
    start(root, IngestEvent, query)
    read = []
    while (made := ListExport.objects.get()).is_running:
        take_step(made)
        read.append(ListExport.objects.get().rows)
        store()  # what arrives meanwhile is not exported, and moves nothing
    assert read[:3] == [2, 4, 6]
    assert set(events) <= set(ids(root, made))
    assert sorted(ids(root, made)) == sorted(set(ids(root, made)))


def test_a_search_of_a_large_table_goes_on_until_its_end(root, store, small, monkeypatch):
    monkeypatch.setattr("tenants.admin.bounded.MAX_SEARCHED_ROWS", 3)
    old = [event.pk for event in store(2, kind="telemetry")]
    store(7)
    assert ids(root, export(root, IngestEvent, "kind__exact=telemetry")) == old[::-1]


def test_small_tables_are_read_in_steps_too_with_the_part_that_is_done(root, make_tenant, small):
    tenant = make_tenant()
    devices = [Device.objects.create(tenant=tenant, name=f"press-{number}").pk for number in range(5)]
    start(root, Device)
    take_step(ListExport.objects.get())
    made = ListExport.objects.get()
    assert (made.rows, made.done) == (2, 0.4)
    assert 'value="0.400"' in root.get(page_of(made)).text
    continue_exports()
    assert sorted(ids(root, ListExport.objects.get())) == devices


def test_large_exports_have_several_files_each_with_a_first_line(root, make_tenant, small, monkeypatch):
    monkeypatch.setattr(work, "FILE_BYTES", 150)
    tenant = make_tenant()
    for number in range(6):
        Device.objects.create(tenant=tenant, name=f"press-{number}")
    made = export(root, Device)
    assert made.files > 1
    assert len(ids(root, made)) == 6
    page = root.get(page_of(made)).text
    for file in range(1, made.files + 1):
        assert f'href="{LIST}{made.pk}/body/{file}/"' in page


def test_an_export_of_too_many_rows_is_ended_and_says_so(root, store, small, monkeypatch):
    monkeypatch.setattr(work, "MAX_ROWS", 4)
    store(9)
    made = export(root, IngestEvent)
    assert (made.rows, made.state) == (4, "incomplete")
    assert "It was ended after 4 rows" in root.get(page_of(made)).text


def test_an_empty_list_has_no_file(root):
    made = export(root, IngestEvent)
    assert "There are no rows." in root.get(page_of(made)).text
    assert download(root, made).status_code == 404


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({}, "no such format"),
        ({"format": "xls"}, "no such format"),
        ({"format": "csv"}, "There is no such list."),
        ({"format": "csv", "list": "axes.accesslog"}, "There is no such list."),
        ({"format": "csv", "list": "exports.listexport"}, "There is no such list."),
        ({"format": "csv", "list": "\x00"}, "There is no such list."),
        ({"format": "csv", "list": "devices.device", "query": "q=" + "x" * 2000}, "more than 2,000 characters"),
        ({"format": "csv", "list": "devices.device", "query": "nowhere=1"}, "Unknown filter"),
        ({"format": "csv", "list": "ingest.ingestevent", "query": "around=noon"}, "is not a time"),
    ],
)
def test_what_can_not_be_exported_gets_a_message(root, form, said):
    response = root.post(START, form, follow=True)
    assert said in response.text
    assert "Nothing was exported." in response.text
    assert not ListExport.objects.exists()


def test_a_user_has_at_most_three_unfinished_exports(root):
    for _ in range(4):
        response = start(root, Device)
    assert "You have 3 exports that are not finished." in response.text
    assert ListExport.objects.count() == 3


def test_staff_export_the_rows_of_their_tenants_only():
    ours, theirs = Side("ours"), Side("theirs")
    client = ours.client()
    for model in (IngestEvent, IngestBatch, SecurityAlert, RejectedBatch, Device, DeviceKey, Tenant):
        text = download(client, export(client, model)).text
        assert str(ours.rows[model].pk) in text
        assert theirs.name not in text


def test_exports_of_others_can_be_neither_seen_nor_downloaded():
    ours, theirs = Side("ours"), Side("theirs")
    client = ours.client()
    assert rows_shown(client.get(LIST)) == [ours.export.pk]
    assert client.get(page_of(theirs.export)).status_code == 302
    assert download(client, theirs.export).status_code == 404
    assert "ours-content" in download(client, ours.export).text


@pytest.mark.parametrize("when", ["before it is read", "while it is read", "before the download"])
def test_an_export_is_of_no_use_once_the_memberships_have_changed(small, store, device_key, when):
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.all())
    user.tenants.add(device_key.device.tenant)
    client = Client()
    client.force_login(user)
    store(5)
    start(client, IngestEvent)
    if when == "while it is read":
        take_step(ListExport.objects.get())
    if when == "before the download":
        continue_exports()
    user.tenants.clear()
    continue_exports()
    made = ListExport.objects.get()
    if when != "before the download":
        assert made.error == work.MEMBERSHIPS_CHANGED
    response = download(client, made)
    assert response.status_code == (404 if when == "before it is read" else 403)


@pytest.mark.parametrize("change", ["the permission", "the account"])
def test_what_the_user_may_no_longer_see_is_neither_read_nor_downloaded(change):
    side = Side("ours")
    client = side.client()
    made = export(client, Device)
    start(client, Device)
    if change == "the permission":
        side.user.user_permissions.clear()
        assert download(client, made).status_code == 403
    else:
        User.objects.filter(pk=side.user.pk).update(is_active=False)
        assert download(client, made).status_code == 302
    continue_exports()
    waiting = ListExport.objects.latest("pk")
    assert (waiting.rows, waiting.error) == (0, "You may no longer see this list.")


def test_exports_are_deleted_after_a_day_and_can_not_be_downloaded_a_moment_later(root, make_tenant):
    Device.objects.create(tenant=make_tenant(), name="press")
    made = export(root, Device)
    ListExport.objects.update(created_at=timezone.now() - KEPT)
    assert download(root, made).status_code == 404
    continue_exports()
    assert not ListExport.objects.exists()
    assert not ListExportPart.objects.exists()


def test_a_download_is_recorded_for_each_tenant_and_for_the_site():
    side, root = Side("ours"), Client()
    Side("theirs")
    root.force_login(User.objects.create_superuser("root"))
    download(root, export(root, Device, "q=press"))
    entries = AuditEntry.objects.filter(verb=Verb.LIST_EXPORTED).order_by("object_name")
    assert [(entry.object_name, entry.after["rows"]) for entry in entries] == [("ours", 1), ("theirs", 1)]
    assert entries[0].after == {"list": "devices", "file": 1, "query": "q=press", "rows": 1}
    download(side.client(), export(side.client(), Device))
    assert AuditEntry.objects.filter(verb=Verb.LIST_EXPORTED, actor_id=side.user.pk).get().tenant == side.tenant
    download(root, export(root, User))
    assert AuditEntry.objects.get(verb=Verb.LIST_EXPORTED, tenant=None).after["list"] == "users"


def test_of_two_processes_that_take_the_same_step_one_stores_it(root, store, small):
    store(6)
    start(root, IngestEvent)
    together = threading.Barrier(4)

    def work_too() -> None:
        same = ListExport.objects.get()
        together.wait()
        take_step(same)
        connection.close()

    threads = [threading.Thread(target=work_too) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = ListExport.objects.get()
    assert (made.rows, made.steps, made.parts.count()) == (2, 1, 1)
    continue_exports()
    assert len(set(ids(root, ListExport.objects.get()))) == 6


def test_a_step_that_is_cut_off_is_done_again(root, store, small, monkeypatch):
    store(6)
    start(root, IngestEvent)
    take_step(ListExport.objects.get())

    def die(**fields):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ListExportPart.objects, "create", die)
        with pytest.raises(KeyboardInterrupt):
            take_step(ListExport.objects.get())
    assert ListExport.objects.get().rows == 2
    continue_exports()
    assert len(ids(root, ListExport.objects.get())) == 6


def test_a_list_that_can_not_be_read_ends_its_export_and_holds_up_no_other(root, store, monkeypatch):
    store(2)
    start(root, Device)
    start(root, IngestEvent)
    read = work.read

    def too_slow(pages, *arguments):
        if pages.model is Device:
            raise OperationalError("canceling statement due to statement timeout")
        return read(pages, *arguments)

    monkeypatch.setattr(work, "read", too_slow)
    continue_exports()
    devices, events = ListExport.objects.order_by("pk")
    assert (devices.state, devices.error[:30]) == ("incomplete", "It could not be read in time. ")
    assert (events.state, events.rows) == ("finished", 2)


def test_each_list_offers_its_export_with_its_filters(root, store):
    store()
    text = root.get(list_of(IngestEvent), {"kind__exact": "log", "q": 'a"b'}).text
    assert f'action="{START}"' in text
    assert 'name="query" value="kind__exact=log&amp;q=a%22b"' in text
    assert START not in root.get(LIST).text


def test_a_page_shows_an_export_that_waits_runs_and_has_finished(root, store, small):
    store(3)
    assert "Waiting for the worker" in start(root, IngestEvent).text
    take_step(ListExport.objects.get())
    text = root.get(page_of(ListExport.objects.get())).text
    assert "2 rows so far" in text
    assert "<progress" in text
    continue_exports()
    text = root.get(page_of(ListExport.objects.get())).text
    assert "<progress" not in text
    assert "/body/1/" in text


def test_exports_are_begun_by_a_form_of_the_site_only(root):
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="root"))
    assert client.post(START, {"list": "devices.device", "format": "csv"}).status_code == 403
    assert client.get(START).status_code == 405
    ListExport.objects.create(user=User.objects.get(), model="devices.device", created_at=timezone.now() - timedelta(1))
    assert not ListExport.objects.filter(steps__gt=0).exists()
