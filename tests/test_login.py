"""Logging in, and what a browser is told to refuse."""

import re
from datetime import timedelta

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture
def analyst(db) -> User:
    return User.objects.create_user("analyst", password=PASSWORD, is_staff=True)


def log_in(password: str, name: str = "analyst", address: str = "192.0.2.1", url: str = "login", **headers: str):
    client = Client(REMOTE_ADDR=address, headers=headers)
    return client.post(reverse(url), {"username": name, "password": password})


def test_a_password_is_hashed_by_argon2(analyst):
    assert analyst.password.startswith("argon2$argon2id$")
    assert log_in(PASSWORD).status_code == 302


def test_an_older_hash_is_still_good_and_made_anew(analyst):
    User.objects.update(password=make_password(PASSWORD, hasher="pbkdf2_sha256"))
    assert log_in(PASSWORD).status_code == 302
    assert User.objects.get().password.startswith("argon2$")


@pytest.mark.parametrize("url", ["login", "admin:login"])
def test_whoever_guesses_has_to_wait(analyst, url):
    answers = [log_in("wrong", url=url).status_code for _ in range(6)]
    assert answers == [200] * 4 + [429] * 2
    refused = log_in(PASSWORD, url=url)
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) == 900
    assert "Too many attempts" in refused.text
    assert PASSWORD not in refused.text

    assert log_in(PASSWORD, address="192.0.2.2").status_code == 302  # the analyst, at work
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
    assert log_in(PASSWORD).status_code == 302


def test_a_header_does_not_make_a_guesser_somebody_else(analyst):
    for number in range(5):
        log_in("wrong", **{"X-Forwarded-For": f"198.51.100.{number}"})
    assert log_in(PASSWORD, **{"X-Forwarded-For": "198.51.100.99"}).status_code == 429


def test_a_good_login_forgets_the_wrong_ones(analyst):
    for _ in range(3):
        for _ in range(3):
            log_in("wrong")
        assert log_in(PASSWORD).status_code == 302


def test_no_password_is_kept_of_an_attempt(analyst):
    log_in("a password that is nearly right")
    kept = [str(value) for value in AccessAttempt.objects.values().get().values()]
    assert not any("nearly right" in value for value in kept)


def policy_of(response) -> dict[str, str]:
    directives = (part.strip().partition(" ") for part in response["Content-Security-Policy"].split(";"))
    return {name: sources for name, _, sources in directives}


@pytest.mark.parametrize("path", ["/login/", "/alerts/", "/healthz", "/nothing-here", "/api/schema"])
def test_our_own_pages_run_no_inline_script_or_style(admin_client, path):
    policy = policy_of(admin_client.get(path))
    assert "unsafe" not in str(policy)
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


def test_our_own_pages_have_none(admin_client, make_tenant):
    make_tenant()
    for path in ("/alerts/", "/login/"):
        page = admin_client.get(path, follow=True).text
        for attributes, content in re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL):
            assert "application/json" in attributes or not content.strip()
        assert not re.search(r"<style|\sstyle=|\son\w+=", page)


def test_the_admin_has_no_inline_script_either(admin_client):
    policy = policy_of(admin_client.get("/admin/"))
    assert policy["script-src"] == "'self' 'unsafe-eval'"
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
