"""The site starts only with the settings that it needs, and every variable is documented."""

import logging
import os
import re
import subprocess
import sys
import time

import pytest
from django.core import checks

from common.seldom import SeldomLine
from ingestcloud.checks import limits_are_positive, processes_need_redis, sqlite_has_one_writer
from tests.support.live import ROOT

pytestmark = pytest.mark.once

GOOD = {
    "SECRET_KEY": "a-long-secret-of-many-characters-0123456789-ABCDEFGHIJ",
    "ALLOWED_HOSTS": "ingest.example",
    "DATABASE_URL": "sqlite:////tmp/none.sqlite3",
}


def check_with(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run `manage.py check --deploy` with this environment and none of our other variables."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    # Present but empty, so that a .env of this checkout does not fill them in.
    empty = dict.fromkeys(
        ["SECRET_KEY", "ALLOWED_HOSTS", "REDIS_URL", "DEMO_DEVICE_KEY", "DEMO_ADMIN_PASSWORD"], ""
    ) | {"HTTPS": "true"}
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    return subprocess.run(
        command, cwd=ROOT, env=kept | empty | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
def test_with_a_secret_and_hosts_it_starts_and_no_deployment_check_complains():
    result = check_with(**GOOD)
    assert (result.returncode, "no issues" in result.stdout + result.stderr) == (0, True), result.stderr


@pytest.mark.parametrize("missing", ["SECRET_KEY", "ALLOWED_HOSTS"])
def test_without_a_required_setting_the_start_is_refused_in_one_line(missing):
    result = check_with(**GOOD | {missing: ""})
    assert result.returncode != 0
    assert result.stderr.startswith(f"{missing} is not set: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("INGEST_MAX_EVENTS", "many"), ("DEBUG", "perhaps"), ("DATABASE_URL", "nonsense")]
)
def test_a_setting_with_an_invalid_value_is_named(name, value):
    result = check_with(**GOOD | {name: value})
    assert result.returncode != 0
    assert name in result.stderr
    assert "Traceback" not in result.stderr


def ids(messages: list[checks.CheckMessage]) -> list[str | None]:
    return [message.id for message in messages]


def test_several_processes_need_redis(settings):
    settings.WEB_CONCURRENCY, settings.REDIS_URL = 2, ""
    assert ids(processes_need_redis(None)) == ["ingestcloud.E001"]
    settings.REDIS_URL = "redis://localhost"
    assert ids(processes_need_redis(None)) == []


@pytest.mark.parametrize("name", ["INGEST_MAX_EVENTS", "INGEST_MAX_BYTES"])
def test_limits_must_be_positive(settings, name):
    setattr(settings, name, 0)
    assert ids(limits_are_positive(None)) == ["ingestcloud.E002"]


@pytest.mark.slow
def test_the_demo_in_production_causes_a_warning():
    result = check_with(**GOOD | {"DEMO_DEVICE_KEY": "dvc_x"})
    assert result.returncode != 0
    assert "ingestcloud.W002" in result.stderr


def test_several_processes_on_sqlite_cause_a_warning(settings, monkeypatch):
    settings.WEB_CONCURRENCY = 2
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django.db.backends.sqlite3")
    assert ids(sqlite_has_one_writer(None)) == ["ingestcloud.W001"]


def test_every_variable_is_documented():
    source = (ROOT / "ingestcloud" / "settings.py").read_text()
    variables = set(re.findall(r'(?:env\.\w+|required)\(\s*"([A-Z_]+)"', source))
    variables |= set(re.findall(r"\$\$\{(\w+):-", (ROOT / "Makefile").read_text()))
    assert len(variables) > 8
    text = (ROOT / "docs" / "operations.md").read_text()
    undocumented = {name for name in variables if f"`{name}`" not in text}
    assert not undocumented


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_with_its_hashes(name):
    """With hashes, pip refuses a file with other contents, no matter who put it into the index."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / name).read_text()).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) > 30
    for line in lines:
        assert re.match(r"[\w.\[\], -]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line), line


@pytest.mark.parametrize(("https", "prefix"), [("true", "__Host-"), ("false", "")])
def test_over_https_cookies_belong_to_this_host_only(https, prefix):
    code = "from django.conf import settings; print(settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME)"
    environment = os.environ | {"HTTPS": https, "DJANGO_SETTINGS_MODULE": "ingestcloud.settings"}
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment, text=True)
    assert printed.split() == [f"{prefix}ingestcloud_session", f"{prefix}ingestcloud_csrf"]


def test_a_repeated_line_is_written_once_per_interval(caplog, monkeypatch):
    line = SeldomLine(logging.getLogger("seldom"), logging.ERROR, seconds=10)
    for now in (0.0, 9.9, 10.0, 15.0, 20.0):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        line.write("at %s", now)
    assert caplog.messages == ["at 0.0", "at 10.0", "at 20.0"]
