"""A page is one transaction that acts as its user, ends in time, and is rolled back if it fails."""

import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from types import ModuleType

import pytest
import time_machine
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import InternalError, OperationalError, connection
from django.http import HttpResponse
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.test import Client
from django.urls import path

from ingestcloud.urls import urlpatterns
from tenants.models import Tenant
from tests.support.servers import servers_only

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
def test_an_address_that_somebody_adds_acts_as_its_user(add_page, member, tenant, make_tenant, address):
    make_tenant(slug="theirs")
    add_page(address, sees)
    assert member.get(address).text == tenant.slug
    assert Client().get(address).text == ""


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
def test_what_fails_is_rolled_back(add_page, member, tenant, view):
    add_page("/page/", view)
    assert member.post("/page/").status_code == 500
    tenant.refresh_from_db()
    assert tenant.name != "written"


def writes(request):
    Tenant.objects.update(name="written")
    return render(request, "base.html", status=400)


def test_what_does_not_fail_is_kept(add_page, member, tenant):
    add_page("/page/", writes)
    assert member.post("/page/").status_code == 400
    tenant.refresh_from_db()
    assert tenant.name == "written"


@pytest.mark.parametrize("error", [OperationalError("database is locked"), InternalError("read-only")])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_database_that_fails_in_a_page_is_503(add_page, member, tenant, error, method):
    def fails(request):
        Tenant.objects.update(name="written")
        raise error

    add_page("/page/", fails)
    for headers in ({}, {"Accept": "application/json"}):
        answer = getattr(member, method)("/page/", headers=headers)
        assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    if connection.vendor == "postgresql" or method == "post":
        tenant.refresh_from_db()
        assert tenant.name != "written"


@servers_only
def test_a_transaction_that_is_read_only_is_503(add_page, member):
    """As on a standby."""

    def writes_on_a_standby(request):
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
        Tenant.objects.update(name="written")

    add_page("/page/", writes_on_a_standby)
    assert member.post("/page/").status_code == 503


@servers_only
@pytest.mark.parametrize("seconds", [[60], [1.2] * 50])
def test_a_page_ends_in_time(add_page, member, seconds):
    def waits(request):
        with connection.cursor() as cursor:
            for each in seconds:
                cursor.execute("SELECT pg_sleep(%s)", [each])

    add_page("/page/", waits)
    began = time.monotonic()
    assert member.get("/page/").status_code == 503
    assert time.monotonic() - began < 8


@servers_only
def test_a_page_does_not_wait_for_a_lock_for_long(member, tenant):
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE security_alerts IN ACCESS EXCLUSIVE MODE")
        try:
            began = time.monotonic()
            assert member.get("/alerts/").status_code == 503
            assert time.monotonic() - began < 8
        finally:
            cursor.execute("ROLLBACK")
            other.close()


@pytest.fixture
def no_writes() -> Iterator[None]:
    """Nobody writes to the database: it is a standby, or on SQLite somebody else is writing."""
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


def test_a_session_that_cannot_be_prolonged_is_503(member, request):
    """It is written when the page is done."""
    request.getfixturevalue("no_writes")
    answer = member.get("/alerts/")
    assert (answer.status_code, answer.get("Retry-After")) == (503, "5")


def test_a_session_that_cannot_be_made_is_503(request):
    User.objects.create_user("other", password="correct horse")
    request.getfixturevalue("no_writes")
    form = {"username": "other", "password": "correct horse"}
    answer = Client(raise_request_exception=False).post("/login/", form)
    assert (answer.status_code, answer.get("Retry-After")) == (503, "5")
    assert settings.SESSION_COOKIE_NAME not in answer.cookies


def test_whose_session_ends_while_they_wait_for_a_page_has_to_log_in(add_page, member):
    def logs_out_elsewhere(request):
        Session.objects.all().delete()
        return HttpResponse("secret")

    add_page("/page/", logs_out_elsewhere)
    answer = member.get("/page/")
    assert (answer.status_code, answer.get("Location")) == (302, "/login/")
    assert answer.cookies[settings.SESSION_COOKIE_NAME].value == ""
    assert member.get("/login/").status_code == 200


def test_a_session_ends_after_hours_without_use(member):
    """And use prolongs it, by a write now and then."""
    with time_machine.travel(time.time() + 11 * 3600) as clock:
        assert member.get("/alerts/").status_code == 200
        clock.shift(11 * 3600)
        assert member.get("/alerts/").status_code == 200
        clock.shift(12 * 3600 + 60)
        assert member.get("/alerts/").status_code == 302
