"""Each page runs in one transaction, which acts as the user, has a time limit, and is rolled back on failure."""

import ast
import asyncio
import contextvars
import sqlite3
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from types import ModuleType

import pytest
import time_machine
from asgiref.sync import sync_to_async
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.models import Session
from django.db import InternalError, OperationalError, connection, transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.test import Client
from django.urls import path, reverse

from common import sequences
from ingestcloud.urls import urlpatterns
from tenants.isolation import acting_as, bypass_isolation
from tenants.models import Tenant
from tests.support.admin_pages import page_of
from tests.support.fairness import assert_within, measures_waiting
from tests.support.live import ROOT
from tests.support.servers import embedded_only, servers_only

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def add_page(settings):
    """Adds a view at an address, as a later version might."""

    def add(address: str, view) -> None:
        module = ModuleType("added_urls")
        module.urlpatterns = [path(address.removeprefix("/"), view), *urlpatterns]  # type: ignore[attr-defined]
        sys.modules["added_urls"] = module
        settings.ROOT_URLCONF = "added_urls"

    yield add
    sys.modules.pop("added_urls", None)


@pytest.fixture
def member(tenant) -> Client:
    user = User.objects.create_user("member")
    user.tenants.add(tenant)
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


def sees(request) -> HttpResponse:
    return HttpResponse(",".join(Tenant.objects.values_list("slug", flat=True)))


@servers_only
@pytest.mark.parametrize("address", ["/api/v1/groups", "/v1/other", "/healthz/more", "/readyz/", "/page/"])
def test_a_page_added_at_any_address_acts_as_its_user(add_page, member, tenant, make_tenant, address):
    make_tenant(slug="theirs")
    add_page(address, sees)
    assert member.get(address).text == tenant.slug
    assert Client().get(address).text == ""


def slugs() -> str:
    return ",".join(Tenant.objects.values_list("slug", flat=True))


def write() -> str:
    Tenant.objects.update(name="written")
    return "written"


def streams(ask):
    def view(request):
        def pieces():
            yield ask()

        return StreamingHttpResponse(pieces())

    return view


def streams_asynchronously(ask):
    def view(request):
        async def pieces():
            yield await sync_to_async(ask)()

        return StreamingHttpResponse(pieces())

    return view


def asks_in_another_thread(ask):
    async def view(request):
        return HttpResponse(await sync_to_async(ask, thread_sensitive=False)())

    return view


def asks_by_asyncio(ask):
    async def view(request):
        return HttpResponse(await asyncio.to_thread(ask))

    return view


STRAYS = [streams, streams_asynchronously, asks_in_another_thread, asks_by_asyncio]


@pytest.mark.parametrize("stray", STRAYS)
@pytest.mark.parametrize("ask", [slugs, write])
@pytest.mark.parametrize("who", ["member", "anybody"])
def test_no_page_queries_the_database_outside_its_transaction(add_page, member, tenant, make_tenant, stray, ask, who):
    """It would run as the tables' owner: it would see all tenants, and its writes would not be rolled back."""
    make_tenant(slug="theirs")
    add_page("/page/", stray(ask))
    client = member if who == "member" else Client(raise_request_exception=False)
    answer = client.get("/page/")
    assert answer.status_code == 500
    assert "theirs" not in answer.text
    assert not Tenant.objects.filter(name="written").exists()


def test_a_task_that_outlives_its_page_does_not_query_as_the_owner(tenant):
    """It still has the context of the page, but the page's transaction is over."""
    with acting_as(AnonymousUser()):
        context = contextvars.copy_context()
    with pytest.raises(RuntimeError, match="until it ends"):
        context.run(slugs)
    with pytest.raises(RuntimeError, match="until it ends"), ThreadPoolExecutor() as threads:
        threads.submit(context.run, slugs).result()
    assert slugs() == tenant.slug


def test_an_asynchronous_view_queries_as_its_user(add_page, member, tenant, make_tenant):
    async def view(request):
        return HttpResponse(",".join([each.slug async for each in Tenant.objects.for_user(await request.auser())]))

    make_tenant(slug="theirs")
    add_page("/page/", view)
    assert member.get("/page/").text == tenant.slug


THREADS = {"Thread", "Timer", "ThreadPoolExecutor", "run_in_executor"}
# Their threads serve devices, sockets and health checks, decode, or hash passwords: none belongs to a page.
MODULES_WITH_THREADS = {"common/database.py", "ingest/storing/writer.py", "ingest/turns.py", "ingestcloud/login.py"}


def test_no_page_starts_a_thread_without_its_context():
    """Its queries would run as the owner. `sync_to_async` and `asyncio.to_thread` pass the context on."""
    rooms = ("alerts", "common", "devices", "ingest", "ingestcloud", "tenants")
    found = {
        str(module.relative_to(ROOT))
        for room in rooms
        for module in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in THREADS
    }
    assert found == MODULES_WITH_THREADS


def writes_and_raises(request):
    Tenant.objects.update(name="written")
    raise LookupError


def writes_and_renders(request):
    Tenant.objects.update(name="written")
    return TemplateResponse(request, "no/such/template.html")


def writes_and_answers_500(request):
    Tenant.objects.update(name="written")
    return HttpResponse(status=500)


@pytest.mark.parametrize("view", [writes_and_raises, writes_and_renders, writes_and_answers_500])
@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("who", ["member", "anybody"])
def test_a_page_that_fails_is_rolled_back(add_page, member, tenant, view, method, who):
    add_page("/page/", view)
    client = member if who == "member" else Client(raise_request_exception=False)
    assert getattr(client, method)("/page/").status_code == 500
    tenant.refresh_from_db()
    assert tenant.name != "written"


@contextmanager
def another_writer():
    """Another connection holds SQLite's only write lock."""
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.close()


@measures_waiting
@embedded_only
def test_a_page_that_only_reads_neither_waits_for_a_writer_nor_blocks_one(add_page, member, tenant):
    """SQLite has one lock for all writers; a page that reads does not take it, logged in or not."""
    add_page("/page/", sees)
    member.get("/page/")  # records that the session is in use
    with another_writer():
        began = time.monotonic()
        for client in (member, Client()):
            assert client.get("/page/").text == tenant.slug
        assert Client().get("/login/").status_code == 200
        assert_within(3, time.monotonic() - began)  # a writer would wait for five seconds


def write_by_another() -> None:
    Tenant.objects.update(name="by another")
    connection.close()


@embedded_only
def test_a_page_that_writes_after_another_wrote_since_its_read_is_503(add_page, member, tenant):
    """A transaction that began by reading can no longer take SQLite's write lock once another has written."""

    def reads_and_writes(request):
        slugs()
        with ThreadPoolExecutor() as threads:
            threads.submit(write_by_another).result()
        write()

    add_page("/page/", reads_and_writes)
    assert member.get("/page/").status_code == 503
    tenant.refresh_from_db()
    assert tenant.name == "by another"


@servers_only
@pytest.mark.parametrize("table", ["audit_entries", "tenants"])
def test_an_id_that_is_taken_is_503_and_then_repaired(admin_client, tenant, table, caplog):
    """As after a switch-over to a replica whose sequences were not replicated."""
    add, form = reverse("admin:tenants_tenant_add"), {"name": "x"} | NO_MEMBERS
    for slug in ("x", "y"):
        assert admin_client.post(add, form | {"slug": slug}).status_code == 302
    set_back(table)
    answer = admin_client.post(add, form | {"slug": "second"})
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert f"The sequence was behind the table, and was set forward: {table}" in caplog.messages
    assert not Tenant.objects.filter(slug="second").exists()
    assert admin_client.post(add, form | {"slug": "second"}).status_code == 302


@servers_only
@pytest.mark.parametrize("url", ["login", "admin:login"])
def test_a_login_is_503_once_if_a_sequence_is_behind(url):
    def fail(name: str) -> int:
        return Client().post(reverse(url), {"username": name, "password": "x"}).status_code

    assert [fail("x"), fail("y")] == [200, 200]
    set_back("axes_accessattempt")
    assert [fail("z"), fail("z")] == [503, 200]


NO_MEMBERS = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}


def set_back(table: str) -> None:
    """Set the sequence back, so that the next two ids from it are taken."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id) - 1, false) FROM {table}")


@servers_only
def test_any_other_unique_violation_is_a_500(add_page, member, tenant):
    def clashes(request):
        with bypass_isolation():
            Tenant.objects.create(slug=tenant.slug, name="x")

    add_page("/page/", clashes)
    assert member.get("/page/").status_code == 500


@servers_only
def test_every_sequence_of_the_schema_is_checked(client, tenant, monkeypatch):
    """Those of every app, and of partitioned tables too; the table only needs a row."""
    monkeypatch.setattr("ingestcloud.health.ANSWER_SECONDS", 20)  # a busy machine takes its time
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_sequences WHERE schemaname = current_schema()")
        (count,) = cursor.fetchone()
        owned = sequences._owned(cursor)
    assert len(owned) == count
    tables = {each["table"] for each in owned}
    assert tables >= {"audit_entries", "axes_accessattempt", "ingest_events", "auth_user", "memberships"}
    for name in ("x", "y"):
        AccessAttempt.objects.create(username=name, failures_since_start=1)
    assert sequences.behind() == []
    set_back("axes_accessattempt")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["database"] == "the sequence is behind the table: axes_accessattempt"
    assert sequences.set_forward() == ["axes_accessattempt"]
    assert sequences.set_forward() == sequences.behind() == []


@servers_only
def test_those_who_set_a_sequence_forward_take_turns():
    """The slower of two would set it back, to ids that it has given since."""

    def set_forward() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '200ms'")
                sequences.set_forward()
        finally:
            connection.close()

    with transaction.atomic(), connection.cursor() as cursor, ThreadPoolExecutor() as threads:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [sequences.LOCK])
        with pytest.raises(OperationalError, match="lock timeout"):
            threads.submit(set_forward).result()


@pytest.mark.parametrize("url", ["/login/", "/admin/login/"])
def test_account_pages_work_without_the_role_of_other_pages(url):
    """Logging in, changing the password and logging out query accounts and sessions as no other page may."""
    user = User.objects.create_superuser("ada", password="correct horse battery")
    client = Client()
    assert client.post(url, {"username": "ada", "password": "correct horse battery"}).status_code == 302
    user.refresh_from_db()
    assert user.last_login is not None
    root = "/admin/password_change/" if "admin" in url else "/password/"
    new = {"new_password1": "staple battery horse", "new_password2": "staple battery horse"}
    assert client.post(root, {"old_password": "correct horse battery"} | new).status_code == 302
    assert client.get("/alerts/").status_code == 200
    assert client.post(url.replace("login", "logout")).status_code in (200, 302)
    assert not Session.objects.exists()
    assert client.get("/alerts/").status_code == 302


def test_a_superuser_steps_down(admin_client, admin_user):
    joined = {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    form = {"username": "admin", "is_active": "on", "is_staff": "on"} | joined
    assert admin_client.post(page_of(admin_user), form).status_code == 302
    admin_user.refresh_from_db()
    assert not admin_user.is_superuser


def writes(request):
    Tenant.objects.update(name="written")
    return render(request, "base.html", status=400)


def test_a_page_that_does_not_fail_is_committed(add_page, member, tenant):
    add_page("/page/", writes)
    assert member.post("/page/").status_code == 400
    tenant.refresh_from_db()
    assert tenant.name == "written"


@pytest.mark.parametrize("error", [OperationalError("database is locked"), InternalError("read-only")])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_database_error_in_a_page_is_503(add_page, member, tenant, error, method):
    def fails(request):
        Tenant.objects.update(name="written")
        raise error

    add_page("/page/", fails)
    for headers in ({}, {"Accept": "application/json"}):
        answer = getattr(member, method)("/page/", headers=headers)
        assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    tenant.refresh_from_db()
    assert tenant.name != "written"


@servers_only
def test_a_write_in_a_read_only_transaction_is_503(add_page, member):
    """As on a standby."""

    def writes_on_a_standby(request):
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
        Tenant.objects.update(name="written")

    add_page("/page/", writes_on_a_standby)
    assert member.post("/page/").status_code == 503


@measures_waiting
@servers_only
@pytest.mark.parametrize("seconds", [[60], [1.2] * 50])
def test_a_page_has_a_time_limit(add_page, member, seconds):
    def waits(request):
        with connection.cursor() as cursor:
            for each in seconds:
                cursor.execute("SELECT pg_sleep(%s)", [each])

    add_page("/page/", waits)
    began = time.monotonic()
    assert member.get("/page/").status_code == 503
    assert_within(8, time.monotonic() - began)


@measures_waiting
@servers_only
def test_a_page_does_not_wait_for_a_lock_for_long(member, tenant):
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE alert_groups IN ACCESS EXCLUSIVE MODE")
        try:
            began = time.monotonic()
            assert member.get("/api/v1/groups").status_code == 503
            assert_within(8, time.monotonic() - began)
        finally:
            cursor.execute("ROLLBACK")
            other.close()


@pytest.fixture
def no_writes() -> Iterator[None]:
    """The database takes no writes: it is a standby, or on SQLite another connection is writing."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = on")
            yield
            cursor.execute("SET default_transaction_read_only = off")
    else:
        with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")


@pytest.mark.slow
def test_a_session_that_cannot_be_extended_is_503(member, request):
    """The session is saved when the page is done."""
    request.getfixturevalue("no_writes")
    answer = member.get("/alerts/")
    assert (answer.status_code, answer.get("Retry-After")) == (503, "5")


@pytest.mark.slow
def test_a_session_that_cannot_be_created_is_503(request):
    User.objects.create_user("other", password="correct horse")
    request.getfixturevalue("no_writes")
    form = {"username": "other", "password": "correct horse"}
    answer = Client(raise_request_exception=False).post("/login/", form)
    assert (answer.status_code, answer.get("Retry-After")) == (503, "5")
    assert settings.SESSION_COOKIE_NAME not in answer.cookies


def test_a_user_whose_session_ends_during_a_page_has_to_log_in(add_page, member):
    def logs_out_elsewhere(request):
        with bypass_isolation():
            Session.objects.all().delete()
        return HttpResponse("secret")

    add_page("/page/", logs_out_elsewhere)
    answer = member.get("/page/")
    assert (answer.status_code, answer.get("Location")) == (302, "/login/")
    assert answer.cookies[settings.SESSION_COOKIE_NAME].value == ""
    assert member.get("/login/").status_code == 200


def test_a_session_ends_after_hours_without_use(member):
    """Use extends it, with a write now and then."""
    with time_machine.travel(time.time() + 11 * 3600) as clock:
        assert member.get("/alerts/").status_code == 200
        clock.shift(11 * 3600)
        assert member.get("/alerts/").status_code == 200
        clock.shift(12 * 3600 + 60)
        assert member.get("/alerts/").status_code == 302
