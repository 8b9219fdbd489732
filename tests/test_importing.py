"""Importing devices from a CSV file in the admin."""

import base64
import csv
import io
import re
import threading
from datetime import timedelta

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, connections, transaction
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.html import escape

from devices.importing import MAX_BYTES, MAX_ROWS
from devices.keys import key_digest
from devices.models import Device, DeviceKey
from tenants.models import ActorKind, AuditEntry, Tenant, Verb
from tests.support.admin_pages import list_of, page_of
from tests.support.servers import servers_only

pytestmark = pytest.mark.django_db

URL = "/admin/devices/device/import/"
PERMISSIONS = ("view_device", "add_device", "change_device", "add_devicekey")
GOOD = "name,location,type\npress-01,Hall 3,edge-gateway\npress-02,,\n"


def upload(client: Client, tenant: Tenant | int, data: str | bytes, **more: object) -> HttpResponse:
    data = data.encode() if isinstance(data, str) else data
    number = tenant.pk if isinstance(tenant, Tenant) else tenant
    return client.post(URL, {"tenant": number, "file": SimpleUploadedFile("devices.csv", data), **more})


def previewed(response: HttpResponse) -> str:
    """The preview that the page's form carries."""
    return re.search(r'name="preview" value="([^"]+)"', response.text)[1]


def confirm(client: Client, response: HttpResponse) -> HttpResponse:
    return client.post(URL, {"preview": previewed(response)})


def key_file(response: HttpResponse) -> str:
    return base64.b64decode(re.search(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', response.text)[1]).decode()


def keys_in(response: HttpResponse) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(key_file(response))))


def errors_in(response: HttpResponse) -> list[tuple[int, str, str]]:
    return [tuple(error) for error in response.context["errors"]]


def stored() -> list[tuple[str, str, str]]:
    return list(Device.objects.order_by("pk").values_list("name", "location", "type"))


def test_a_preview_shows_what_would_be_added_and_adds_nothing(admin_client, tenant):
    Device.objects.create(tenant=tenant, name="press-02", location="Hall 1")
    response = upload(admin_client, tenant, GOOD)
    rows = [(row.line, row.device.name, row.exists) for row, _ in response.context["rows"]]
    assert rows == [(2, "press-01", False), (3, "press-02", True)]
    assert "<strong>1 device</strong> will be added" in response.text
    assert "1 device exists and is left alone" in re.sub(r"\s+", " ", response.text)
    assert stored() == [("press-02", "Hall 1", "")]
    assert not DeviceKey.objects.exists()


def test_what_was_previewed_is_added_each_with_a_key_of_its_own(admin_client, tenant):
    response = confirm(admin_client, upload(admin_client, tenant, GOOD))
    assert stored() == [("press-01", "Hall 3", "edge-gateway"), ("press-02", "", "")]
    rows = keys_in(response)
    assert [row["name"] for row in rows] == ["press-01", "press-02"]
    for row in rows:
        key = DeviceKey.objects.get(digest=key_digest(row["device_key"]))
        assert (key.device_id, key.device.name, key.device.tenant) == (int(row["device_id"]), row["name"], tenant)
        assert row["device_key"].startswith(key.prefix)
    assert DeviceKey.objects.usable().count() == 2


def test_what_exists_is_left_alone_and_gets_no_key(admin_client, tenant):
    Device.objects.create(tenant=tenant, name="press-02", location="Hall 1", burst=7)
    response = confirm(admin_client, upload(admin_client, tenant, GOOD))
    assert [row["name"] for row in keys_in(response)] == ["press-01"]
    assert stored() == [("press-02", "Hall 1", ""), ("press-01", "Hall 3", "edge-gateway")]
    assert Device.objects.get(name="press-02").burst == 7


def test_the_plaintexts_are_only_in_the_answer_to_the_post(admin_client, tenant):
    response = confirm(admin_client, upload(admin_client, tenant, GOOD))
    plaintexts = [row["device_key"] for row in keys_in(response)]
    assert len(set(plaintexts)) == 2
    assert "no-store" in response["Cache-Control"]
    assert "they can&#x27;t be shown again" in response.text or "they can't be shown again" in response.text
    device = Device.objects.first()
    elsewhere = [admin_client.get(url).text for url in (URL, list_of(Device), list_of(DeviceKey), page_of(device))]
    elsewhere += [str(response.cookies), str(dict(admin_client.session))]
    elsewhere += [f"{entry.object_name} {entry.after}" for entry in AuditEntry.objects.all()]
    for plaintext in plaintexts:
        assert not any(plaintext in text for text in elsewhere)


def test_the_audit_says_who_imported_each_device_and_key(admin_client, admin_user, tenant):
    confirm(admin_client, upload(admin_client, tenant, GOOD))
    entries = AuditEntry.objects.filter(tenant=tenant, actor_kind=ActorKind.USER, actor_id=admin_user.pk)
    for device in Device.objects.all():
        [created] = entries.filter(verb=Verb.DEVICE_CREATED, object_id=device.pk, object_name=device.name)
        assert created.after == {"name": device.name} | (
            {"location": "Hall 3", "type": "edge-gateway"} if device.location else {}
        )
        [issued] = entries.filter(verb=Verb.DEVICE_KEY_ISSUED, object_id=device.keys.get().pk)
        assert (issued.owner_id, issued.after) == (device.pk, {"device": device.name})
    assert entries.filter(verb__in=[Verb.DEVICE_CREATED, Verb.DEVICE_KEY_ISSUED]).count() == 4


@pytest.mark.parametrize(
    "data",
    [
        GOOD.encode("utf-8-sig"),
        GOOD.replace(",", ";").encode(),
        GOOD.replace("\n", "\r\n").encode(),
        b"TYPE;Name;Location\nedge-gateway;press-01;Hall 3\n\n;;\n;press-02;",
        b'"name","location","type"\n"press-01"," Hall 3 ","edge-gateway"\n press-02\n',
    ],
)
def test_a_file_may_be_written_in_several_ways(admin_client, tenant, data):
    confirm(admin_client, upload(admin_client, tenant, data))
    assert stored() == [("press-01", "Hall 3", "edge-gateway"), ("press-02", "", "")]


def test_names_may_have_any_letters_and_quoted_separators(admin_client, tenant):
    confirm(admin_client, upload(admin_client, tenant, 'name,location\n"Presse, groß","Halle ""3"""\n冲压机,\n'))
    assert stored() == [("Presse, groß", 'Halle "3"', ""), ("冲压机", "", "")]


TOO_LONG = "Ensure this value has at most {} characters (it has {})."
NOT_UTF8 = "This is not UTF-8. Save the file as “CSV UTF-8”."


@pytest.mark.parametrize(
    ("data", "errors"),
    [
        ("name\na\nb\na\n", [(4, "name", "Line 2 has the same name.")]),
        ("name,type\n,x\n", [(2, "name", "This field cannot be blank.")]),
        ("name\n" + "x" * 201, [(2, "name", TOO_LONG.format(200, 201))]),
        (
            f"type,name,location\n{'x' * 101},a,{'y' * 201}\n",
            [(2, "location", TOO_LONG.format(200, 201)), (2, "type", TOO_LONG.format(100, 101))],
        ),
        ("name\na\x00b\n", [(2, "name", "Must not have control or invisible characters, such as U+0000.")]),
        ('name\n"a\nb"\n\u202ec\n', [
            (2, "name", "Must not have control or invisible characters, such as U+000A."),
            (4, "name", "Must not have control or invisible characters, such as U+202E."),
        ]),
        ("name,location\na,Hölle\nb,ok\n".encode("latin-1"), [(2, "location", NOT_UTF8)]),
        (GOOD.encode("utf-16"), [(1, "", NOT_UTF8)]),
        ("name,location\na,b,c\n", [(2, "", "There are 3 cells, but 2 columns.")]),
        ('name\n"a\n', [(2, "", "This can't be read as CSV: unexpected end of data.")]),
        ('name\n"a"b\n', [(2, "", "This can't be read as CSV: ',' expected after '\"'.")]),
        ("name\n\n", [(1, "", "There are no devices in this file, only its first line.")]),
        ("name,name\na,b\n", [(1, "name", "This column is there twice.")]),
        ("site\na\n", [
            (1, "site", "Unknown column. The first line names the columns: name, location, type."),
            (1, "name", "This column is missing. The first line names the columns: name, location, type."),
        ]),
        ("name\n" + "\n".join(f"d{number}" for number in range(MAX_ROWS + 1)), [
            (MAX_ROWS + 2, "", "A file may have at most 1000 devices. Split it."),
        ]),
    ],
)  # fmt: skip
def test_every_error_is_named_by_line_and_column(admin_client, tenant, data, errors):
    response = upload(admin_client, tenant, data)
    assert errors_in(response) == errors
    for _, _, detail in errors:
        assert escape(detail) in response.text
    assert 'name="preview"' not in response.text
    assert not Device.objects.exists()


def test_of_many_errors_the_first_hundred_are_shown(admin_client, tenant):
    response = upload(admin_client, tenant, "name,type\n" + ",x\n" * 130)
    assert len(errors_in(response)) == 100
    assert "And 30 more." in response.text


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "The submitted file is empty."), (b"name\n" + b"x" * MAX_BYTES, "The file has 512.0\xa0KB. Split it.")],
)
def test_a_file_that_is_empty_or_too_large_is_refused(admin_client, tenant, data, said):
    assert said in upload(admin_client, tenant, data).text


@pytest.mark.parametrize(
    "form", [{}, {"tenant": "x"}, {"tenant": "9" * 30}, {"file": "no file"}, {"tenant": "\x00", "preview": ""}]
)
def test_a_form_with_nonsense_is_shown_again(admin_client, form):
    response = admin_client.post(URL, form, follow=True)
    assert response.status_code == 200
    assert "required" in response.text or "no longer valid" in response.text


@pytest.mark.parametrize("change", ["added", "renamed"])
def test_nothing_is_added_if_the_devices_have_changed_since_the_preview(admin_client, tenant, change):
    other = Device.objects.create(tenant=tenant, name="press-02" if change == "renamed" else "other")
    response = upload(admin_client, tenant, GOOD)
    Device.objects.filter(pk=other.pk).update(name="renamed" if change == "renamed" else "press-01")
    response = confirm(admin_client, response)
    assert "Nothing was added now" in response.text
    assert Device.objects.count() == 1
    assert not DeviceKey.objects.exists()
    assert len(keys_in(confirm(admin_client, response))) == (2 if change == "renamed" else 1)


def test_a_repeat_of_the_confirmation_makes_no_second_set_of_keys(admin_client, tenant):
    response = upload(admin_client, tenant, GOOD)
    confirm(admin_client, response)
    again = confirm(admin_client, response)
    assert "perhaps by this import itself" in again.text
    assert "data:text/csv" not in again.text
    assert DeviceKey.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_two_confirmations_at_the_same_time_one_makes_the_keys(admin_client, tenant):
    preview = upload(admin_client, tenant, GOOD)
    answers: list[HttpResponse] = []

    def post() -> None:
        client = Client()
        client.force_login(User.objects.get(username="admin"))
        answers.append(confirm(client, preview))
        connections.close_all()

    threads = [threading.Thread(target=post) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted("data:text/csv" in answer.text for answer in answers) == [False, True]
    assert DeviceKey.objects.count() == Device.objects.count() == 2


@servers_only
@pytest.mark.django_db(transaction=True)
def test_if_a_name_is_taken_meanwhile_none_is_added(admin_client, tenant):
    preview = upload(admin_client, tenant, GOOD)
    answers: list[HttpResponse] = []

    def post() -> None:
        answers.append(confirm(admin_client, preview))
        connections.close_all()

    thread = threading.Thread(target=post)
    with transaction.atomic():
        Device.objects.create(tenant=tenant, name="press-02")
        thread.start()
        with connection.cursor() as cursor:
            granted = False
            while not granted:
                cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
                granted = cursor.fetchone()[0]
    thread.join()
    assert "Nothing was added now" in answers[0].text
    assert stored() == [("press-02", "", "")]
    assert not DeviceKey.objects.exists()


@pytest.mark.parametrize("start", "=+-@")
def test_a_name_that_looks_like_a_formula_is_harmless_in_the_file(admin_client, tenant, start):
    response = confirm(admin_client, upload(admin_client, tenant, f"name\n{start}cmd|' /C calc'!A0\n"))
    assert [row["name"] for row in keys_in(response)] == [f"'{start}cmd|' /C calc'!A0"]
    assert Device.objects.get().name == f"{start}cmd|' /C calc'!A0"


@pytest.mark.parametrize("missing", ["add_device", "change_device", "add_devicekey"])
def test_staff_import_only_if_they_may_add_devices_and_issue_keys(staff, tenant, missing):
    permitted, client = staff(*PERMISSIONS, tenants=(tenant,)), staff(*set(PERMISSIONS) - {missing}, tenants=(tenant,))
    assert URL in permitted.get(list_of(Device)).text
    assert URL not in client.get(list_of(Device)).text
    assert client.get(URL).status_code == 403
    assert upload(client, tenant, GOOD).status_code == 403
    assert (
        confirm(
            client,
            upload(permitted, tenant, GOOD),
        ).status_code
        == 403
    )
    assert not Device.objects.exists()


def test_staff_import_only_for_tenants_that_they_are_members_of(staff, make_tenant):
    mine, other = make_tenant(name="Mine"), make_tenant(name="Other")
    client = staff(*PERMISSIONS, tenants=(mine,))
    Device.objects.create(tenant=other, name="press-01")
    assert "Other" not in client.get(URL).text
    assert "Select a valid choice" in upload(client, other, GOOD).text
    response = upload(client, mine, GOOD)
    assert not response.context["found"].existing_names
    assert len(keys_in(confirm(client, response))) == 2
    assert Device.objects.filter(tenant=other).count() == 1


def test_a_preview_is_of_no_use_to_others_or_without_the_membership(staff, tenant):
    client, colleague = (staff(*PERMISSIONS, tenants=(tenant,)) for _ in range(2))
    response = upload(client, tenant, GOOD)
    assert confirm(colleague, response).url == URL
    User.objects.get(pk=client.session["_auth_user_id"]).tenants.clear()
    assert confirm(client, response).url == URL
    assert not Device.objects.exists()


@pytest.mark.parametrize("change", ["tampered", "old"])
def test_a_preview_that_is_tampered_with_or_old_adds_nothing(admin_client, tenant, change):
    preview = previewed(upload(admin_client, tenant, GOOD))
    with time_machine.travel(timezone.now() + timedelta(hours=2 if change == "old" else 0)):
        response = admin_client.post(URL, {"preview": preview if change == "old" else preview[1:]}, follow=True)
    assert "This preview is no longer valid. Choose the file again." in response.text
    assert not Device.objects.exists()


def test_an_import_needs_a_csrf_token(admin_user, admin_client, tenant):
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert confirm(client, upload(admin_client, tenant, GOOD)).status_code == 403
    assert not Device.objects.exists()


@servers_only
def test_five_hundred_devices_take_no_more_queries_than_two(admin_client, tenant, django_assert_max_num_queries):
    few = upload(admin_client, tenant, GOOD)
    with CaptureQueriesContext(connection) as queries:
        confirm(admin_client, few)
    count = len(queries)  # the next request empties the log
    many = upload(admin_client, tenant, "name\n" + "\n".join(f"fleet-{number}" for number in range(500)))
    with django_assert_max_num_queries(count):
        assert len(keys_in(confirm(admin_client, many))) == 500
