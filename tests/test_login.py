"""Logging in, passwords, cookies, and the content security policy."""

import re
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from common.buckets import Buckets
from ingestcloud import login
from ingestcloud.login import PASSWORD_LENGTH, network_of
from tests.support.live import HTTP, Server

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture
def analyst(db) -> User:
    return User.objects.create_user("analyst", password=PASSWORD, is_staff=True)


def log_in(password: str, name: str = "analyst", address: str = "192.0.2.1", url: str = "login", **headers: str):
    client = Client(REMOTE_ADDR=address, headers=headers)
    return client.post(reverse(url), {"username": name, "password": password})


def test_a_password_is_hashed_with_argon2(analyst):
    assert analyst.password.startswith("argon2$argon2id$")
    assert log_in(PASSWORD).status_code == 302


def test_an_older_hash_still_works_and_is_replaced(analyst):
    User.objects.update(password=make_password(PASSWORD, hasher="pbkdf2_sha256"))
    assert log_in(PASSWORD).status_code == 302
    assert User.objects.get().password.startswith("argon2$")


@pytest.mark.parametrize("url", ["login", "admin:login"])
def test_a_guesser_has_to_wait(analyst, url):
    answers = [log_in("wrong", url=url).status_code for _ in range(6)]
    assert answers == [200] * 4 + [429] * 2
    refused = log_in(PASSWORD, url=url)
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) == 900
    assert "Too many attempts" in refused.text
    assert "15 minutes after the last attempt" in refused.text
    assert PASSWORD not in refused.text

    assert log_in(PASSWORD, address="192.0.2.2").status_code == 302  # the analyst, at another address
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
    assert log_in(PASSWORD).status_code == 302


def test_a_header_does_not_disguise_a_guesser(analyst):
    for number in range(5):
        log_in("wrong", **{"X-Forwarded-For": f"198.51.100.{number}"})
    assert log_in(PASSWORD, **{"X-Forwarded-For": "198.51.100.99"}).status_code == 429


def test_a_successful_login_clears_the_failed_ones(analyst):
    for _ in range(3):
        for _ in range(3):
            log_in("wrong")
        assert log_in(PASSWORD).status_code == 302


def test_no_password_is_kept_from_an_attempt(analyst):
    form = {"username": "analyst", "password": "nearly right", "old_password": "nearly right", "x": "nearly right"}
    for _ in range(2):
        Client().post("/login/?x=nearly+right", form, headers={"Accept": "nearly right"})
    kept = [str(value) for value in AccessAttempt.objects.values().get().values()]
    assert not any("right" in value for value in kept)


def multipart(head: str, **fields: str) -> bytes:
    """A form that no browser would send: names of fields are sent as given, each followed by `head`."""
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"{head}\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return "".join([*parts, "--x--\r\n"]).encode()


class Guesser:
    """Posts forms to a running server, exactly the bytes given."""

    def __init__(self, server: Server, url: str) -> None:
        self.url = server.url + url
        token = httpx.get(f"{server.url}/login/", **HTTP).cookies[settings.CSRF_COOKIE_NAME]
        cookie = f"{settings.CSRF_COOKIE_NAME}={token}"
        self.headers = {"Cookie": cookie, "X-CSRFToken": token, "Content-Type": "multipart/form-data; boundary=x"}

    def post(self, body: bytes, **headers: str | bytes) -> int:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(self.url, content=body, headers={**self.headers, **given}, **HTTP).status_code


CHARSETS = ["unicode_escape", "raw_unicode_escape", "hex", "rot13", "undefined", "idna", "utf-16", "latin1", "nope"]


@pytest.mark.once
@pytest.mark.parametrize("url", ["/login/", "/admin/login/", "/alerts/", "/nothing-here", "/api/v1/devices/register"])
@pytest.mark.django_db(transaction=True)
def test_only_utf_8_is_accepted(server, url):
    guesser = Guesser(server, url)
    body = multipart("", username="analyst", password="x", z=r"\ud800")
    for charset in CHARSETS:
        for content_type in (f"multipart/form-data; boundary=x; charset={charset}", f"text/plain; charset={charset}"):
            assert guesser.post(body, Content_Type=content_type) == 400, content_type
    for charset in ("utf-8", "UTF-8", '"utf-8"', "us-ascii"):
        assert guesser.post(body, Content_Type=f"multipart/form-data; boundary=x; charset={charset}") != 400


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain; x*0*=a; x*=b",
        "text/plain; charset*=nope''utf-8",
        "text/plain; x*=undefined''%ff",
        "text/plain; x*=idna''%ff",
        b"text/plain; charset=\xff",
    ],
)
@pytest.mark.django_db(transaction=True)
def test_a_content_type_that_cannot_be_parsed_is_refused(server, content_type):
    for url in ("/login/", "/healthz", "/api/v1/devices/register"):
        assert Guesser(server, url).post(b"x", Content_Type=content_type) == 400


@pytest.mark.django_db(transaction=True)
def test_a_part_that_cannot_be_parsed_is_refused(server):
    guesser = Guesser(server, "/login/")
    assert guesser.post(multipart("; x*0*=a; x*=b", username="x")) == 400
    assert guesser.post(multipart(r"; x*=unicode_escape''\ud800", username="x")) < 500
    assert guesser.post(multipart("; x*=undefined''%ff", username="x")) < 500


ODD = {
    "a charset": {"Content_Type": "multipart/form-data; boundary=x; charset=unicode_escape"},
    "NUL": {"body": multipart("", username="analyst", password="wrong", z="\0", next="\0")},
    "a surrogate as bytes": {
        "body": multipart("", username="analyst", password="wrong", z="ZZ").replace(b"ZZ", b"\xed\xa0\x80")
    },
    "an odd field name": {"body": multipart("", username="analyst", password="wrong", **{"\0\ufffe": "x"})},
    "a megabyte": {"body": multipart("", username="analyst", password="wrong", z="x" * 1_000_000)},
    "User-Agent": {"User_Agent": b"\xed\xa0\x80\xff" * 200},
    "Accept": {"Accept": b"\xed\xa0\x80\xff" * 2000},
    "nothing odd": {},
}


@pytest.mark.once
@pytest.mark.parametrize("url", ["/login/", "/admin/login/"])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.django_db(transaction=True)
def test_each_wrong_password_counts_whatever_comes_with_it(start_server, analyst, url, odd):
    """If a wrong password were not counted, an attacker could try passwords without end."""
    server = start_server(LOG_LEVEL="INFO")
    guesser = Guesser(server, url)
    headers = {name: value for name, value in odd.items() if name != "body"}
    answers = [
        guesser.post(odd.get("body", multipart("", username="analyst", password="wrong", z=r"\ud800")), **headers)
        for _ in range(6)
    ]
    right = guesser.post(multipart("", username="analyst", password=PASSWORD, z=r"\ud800"), **headers)
    refused = [400] * 6 if "Content_Type" in odd else [200] * 4 + [429] * 2
    assert (answers, right) == (refused, refused[-1])
    assert server.log.count("analyst did not log in from 127.0.0.1") == (0 if "Content_Type" in odd else 7)
    assert "Traceback" not in server.log
    server.stop()


@pytest.mark.parametrize("path", [b"\0", b"\x80"])
@pytest.mark.django_db(transaction=True)
def test_a_header_with_nul_reaches_no_page(server, path):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(
            b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a" + path + b"b\r\nContent-Length: 0\r\n\r\n"
        )
        assert raw.recv(100).split()[1] in (b"400", b"403")


def policy_of(response) -> dict[str, str]:
    directives = (part.strip().partition(" ") for part in response["Content-Security-Policy"].split(";"))
    return {name: sources for name, _, sources in directives}


@pytest.mark.parametrize("path", ["/login/", "/alerts/", "/healthz", "/nothing-here", "/api/schema"])
def test_the_policy_of_our_own_pages_allows_no_inline_script_or_style(admin_client, path):
    policy = policy_of(admin_client.get(path))
    assert "unsafe" not in str(policy)
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


def test_our_own_pages_have_no_inline_script_or_style(admin_client, make_tenant):
    make_tenant()
    for path in ("/alerts/", "/login/"):
        page = admin_client.get(path, follow=True).text
        for attributes, content in re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL):
            assert "application/json" in attributes or not content.strip()
        assert not re.search(r"<style|\sstyle=|\son\w+=", page)


def test_the_policy_of_the_admin_allows_no_inline_script_either(admin_client):
    policy = policy_of(admin_client.get("/admin/"))
    assert policy["script-src"] == "'self' 'unsafe-eval'"
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"


def test_a_hash_takes_little_memory(analyst):
    assert "$m=19456,t=2,p=1$" in analyst.password


@pytest.mark.slow
@pytest.mark.parametrize("url", ["login", "admin:login"])
def test_logins_from_a_network_are_limited_whatever_the_usernames(analyst, url, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    for number in range(30):
        assert log_in("wrong", name=f"name-{number}", url=url).status_code == 200
    refused = log_in(PASSWORD, url=url)
    assert (refused.status_code, refused["Retry-After"]) == (429, "2")
    assert "Too many logins" in refused.text
    assert log_in(PASSWORD, address="192.0.2.2", url=url).status_code == 302
    monkeypatch.setattr(time, "monotonic", lambda: 1002.0)
    assert log_in(PASSWORD, url=url).status_code == 302


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("unknown", "0.0.0.0"),
        ("", "0.0.0.0"),
    ],
)
def test_an_ipv6_network_is_the_first_64_bits(rf, address, network):
    assert network_of(rf.get("/", REMOTE_ADDR=address)) == network


def test_a_guesser_gains_nothing_from_other_addresses_of_an_ipv6_network(analyst):
    for number in range(5):
        log_in("wrong", address=f"2001:db8::{number}")
    assert log_in(PASSWORD, address="2001:db8::ffff").status_code == 429
    assert log_in(PASSWORD, address="2001:db8:0:1::1").status_code == 302


def test_buckets_are_discarded_before_they_fill_the_memory():
    buckets = Buckets(rate=1, burst=1, most=100)
    for number in range(1000):
        assert buckets.take(str(number)) == 0
        assert len(buckets._buckets) <= 100
    assert buckets.take("999") == 1


def test_only_full_buckets_are_discarded_if_that_makes_room(monkeypatch):
    buckets, moment = Buckets(rate=1, burst=1, most=2), [1000.0]
    monkeypatch.setattr("common.buckets.time.monotonic", lambda: moment[0])
    buckets.take("full again later")
    moment[0] += 10
    buckets.take("empty")
    buckets.take("new")
    assert [buckets.take(key) for key in ("empty", "new", "full again later")] == [1, 1, 0]


def test_buckets_are_forgotten_while_other_threads_take_from_them():
    """Each page has a thread of its own."""
    buckets, usual = Buckets(rate=1, burst=1, most=50), sys.getswitchinterval()

    def take(thread: int) -> set[int]:
        return {buckets.take(f"{thread}, {number}") for number in range(10_000)}

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            assert set().union(*threads.map(take, range(8))) == {0}
    finally:
        sys.setswitchinterval(usual)


@pytest.mark.parametrize(
    ("name", "password"),
    [("a\x00b", "x"), ("x" * 200_000, "x"), ("analyst", "x" * 200_000), ("analyst", "a\x00b"), ("\ufffe", "\u202e")],
)
def test_absurd_names_and_passwords_are_refused(analyst, name, password):
    assert log_in(password, name=name).status_code == 200


def test_each_login_attempt_is_logged(analyst, caplog):
    caplog.set_level("INFO", "ingestcloud.login")
    log_in("wrong")
    log_in(PASSWORD)
    User.objects.update(is_active=False)
    log_in(PASSWORD)
    log_in("x", name="my password, in the wrong field")
    User.objects.update(is_active=True)
    client = Client(REMOTE_ADDR="192.0.2.7")
    client.force_login(User.objects.get())
    client.post(reverse("logout"))
    for _ in range(5):
        log_in("wrong", address="192.0.2.9")
    assert [record.getMessage() for record in caplog.records if record.name == "ingestcloud.login"] == [
        "analyst did not log in from 192.0.2.1: wrong password",
        "analyst logged in from 192.0.2.1",
        "analyst did not log in from 192.0.2.1: not active",
        "An unknown name did not log in from 192.0.2.1: no such user",
        "analyst logged in from an unknown address",  # by this test's `force_login`
        "analyst logged out from 192.0.2.7",
        *["analyst did not log in from 192.0.2.9: wrong password"] * 4,
        "analyst did not log in from 192.0.2.9: locked out",
    ]


def test_analysts_can_change_their_own_password(db):
    user = User.objects.create_user("ada", password=PASSWORD)
    here, elsewhere = Client(), Client()
    for client in (here, elsewhere):
        assert client.post("/login/", {"username": "ada", "password": PASSWORD}).status_code == 302
    assert 'href="/password/"' in here.get("/alerts/").text
    form = {"old_password": PASSWORD, "new_password1": "staple battery horse", "new_password2": "staple battery horse"}
    assert (
        "This password is too short"
        in here.post("/password/", form | {"new_password1": "x", "new_password2": "x"}).text
    )
    assert "Your old password was entered incorrectly" in here.post("/password/", form | {"old_password": "x"}).text
    assert here.post("/password/", form, follow=True).redirect_chain == [("/password/done/", 302)]
    user.refresh_from_db()
    assert user.check_password("staple battery horse")
    assert here.get("/alerts/").status_code == 200
    assert elsewhere.get("/alerts/").status_code == 302
    assert Client().get("/password/").status_code == 302


def change_password(client: Client, old: str, new: str = "staple battery horse"):
    return client.post("/password/", {"old_password": old, "new_password1": new, "new_password2": new})


@pytest.mark.django_db(transaction=True)
def test_the_old_password_cannot_be_guessed_with_a_session(analyst, caplog):
    """Someone with a stolen session cannot try without end: each try is counted and logged, as at a login."""
    caplog.set_level("INFO", "ingestcloud")
    client = Client(REMOTE_ADDR="192.0.2.9")
    client.force_login(analyst)
    assert [change_password(client, f"wrong {number}").status_code for number in range(6)] == [200] * 4 + [429] * 2
    refused = change_password(client, PASSWORD)
    assert (refused.status_code, refused["Retry-After"]) == (429, "900")
    assert User.objects.get().check_password(PASSWORD)
    lines = [record.getMessage() for record in caplog.records if "change their password" in record.getMessage()]
    assert lines[0] == "analyst did not change their password from 192.0.2.9: wrong password"
    assert len(lines) == 7
    assert log_in(PASSWORD, address="192.0.2.2").status_code == 302


def test_a_password_change_is_logged(analyst, caplog):
    caplog.set_level("INFO", "ingestcloud")
    client = Client(REMOTE_ADDR="192.0.2.9")
    client.force_login(analyst)
    assert change_password(client, PASSWORD).status_code == 302
    client.force_login(User.objects.create_superuser("root"))
    url = reverse("admin:auth_user_password_change", args=[analyst.pk])
    new = {"password1": "another horse battery", "password2": "another horse battery", "usable_password": "true"}
    assert client.post(url, new | {"password2": "x"}).status_code == 200
    assert client.post(url, new, follow=True).status_code == 200
    analyst.refresh_from_db()
    assert analyst.check_password("another horse battery")
    form = {"username": "analyst", "first_name": "A"} | {f"{part}_{n}": "" for part in ("date_joined",) for n in (0, 1)}
    client.post(reverse("admin:auth_user_change", args=[analyst.pk]), form)
    assert [record.getMessage() for record in caplog.records if "password" in record.getMessage()] == [
        "analyst changed their password from 192.0.2.9",
        "root changed the password of analyst from 192.0.2.9",
    ]


@pytest.mark.parametrize("method", ["get", "post"])
def test_there_is_only_one_page_to_change_ones_own_password(client, analyst, method):
    client.force_login(analyst)
    answer = getattr(client, method)(reverse("admin:password_change"), {"old_password": PASSWORD})
    assert (answer.status_code, answer["Location"]) == (302, "/password/")


def test_the_length_of_the_old_password_is_limited(client, analyst):
    client.force_login(analyst)
    assert "at most 4096 characters" in change_password(client, "x" * (PASSWORD_LENGTH + 1)).text


def test_a_correct_password_of_a_user_who_is_not_staff_is_logged(analyst, caplog):
    caplog.set_level("INFO", "ingestcloud")
    User.objects.update(is_staff=False)
    assert log_in(PASSWORD, url="admin:login").status_code == 200
    assert [record.getMessage() for record in caplog.records if record.name == "ingestcloud.login"] == [
        "analyst did not log in to the admin from 192.0.2.1: correct password, not staff"
    ]


def test_every_cookie_is_hidden_from_scripts(admin_client, tenant):
    """Messages have no cookie of their own."""
    change = reverse("admin:tenants_tenant_change", args=[tenant.pk])
    page = admin_client.get(change)
    form = {"name": "New", "slug": tenant.slug, "memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}
    saved = admin_client.post(change, form)
    assert saved.status_code == 302
    cookies = {**page.cookies, **saved.cookies, **Client().get("/login/").cookies, **admin_client.cookies}
    assert {settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME} == set(cookies)
    assert all(cookie["httponly"] for cookie in cookies.values() if cookie["path"])
    assert "was changed successfully" in admin_client.get(saved["Location"]).text


def test_a_login_waits_for_its_turn_but_not_forever(analyst, monkeypatch):
    monkeypatch.setattr(login, "TURN_SECONDS", 0.1)
    hold, holding = threading.Event(), threading.Semaphore(0)

    def slow(request: HttpRequest) -> HttpResponse:
        holding.release()
        hold.wait(10)
        return HttpResponse()

    middleware = login.PasswordMiddleware(slow)
    request = RequestFactory().post("/login/")
    with ThreadPoolExecutor(login.HASHES_AT_ONCE) as pool:
        first = [pool.submit(middleware, request) for _ in range(login.HASHES_AT_ONCE)]
        for _ in first:
            assert holding.acquire(timeout=10)
        refused = middleware(request)
        assert (refused.status_code, refused["Retry-After"]) == (503, "5")
        hold.set()
        assert {answer.result().status_code for answer in first} == {200}
    assert middleware(request).status_code == 200
