"""What names must not contain, and how the log writes what a client sends: each record is one line."""

import io
import logging
import logging.config
import time
from collections.abc import Iterator

import httpx
import pytest
from django.conf import settings
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.urls import reverse

from common.text import escape
from devices.models import Device, ProvisioningKey
from ingestcloud.logs import MAX_LINE, SeldomRefusals
from tenants.models import Tenant
from tests.support.assertions import assert_problem
from tests.support.live import HTTP

FORGED = "2026-06-06 10:00:00,000 INFO devices Device press-02 of acme registered"
BAD = {
    "a line of its own": f"press-01\n{FORGED}",
    "a carriage return": f"press-01\r{FORGED}",
    "a tab": "press\t01",
    "terminal colours": "press-01\x1b[31m",
    "a C1 control": "press-01\x9b31m",
    "a next line": "press-01\x85x",
    "a line separator": "press-01\u2028x",
    "a paragraph separator": "press-01\u2029x",
    "a direction override": "press-\u202e10",
    "a direction isolate": "press-\u206701\u2069",
    "a zero-width space": "press-\u200b01",
    "a byte order mark": "\ufeffpress-01",
    "a tag": "press-01\U000e0041",
    "a Hangul filler": "press-01\u3164",
    "a half-width Hangul filler": "press-01\uffa0",
    "a Hangul syllable without a letter": "press\u115f\u116001",
    "an invisible Khmer vowel": "press\u17b4\u17b501",
    "a blank Braille pattern": "press-01\u2800",
    "a grapheme joiner": "press\u034f-01",
    "an invisible musical symbol": "press-01\U0001d159",
}
GOOD = [
    "Prüfstand 7, Süd",
    "プレス 01",
    "مكبس\u200c",
    "👩\u200d🔧 №1",
    "a\u00a0b",
    "עמדה\u200e 7",
    "葛\U000e0100城 1",
    "⚙\ufe0f 2",
]
UNSEEN = ["\u200d", "\u200c\u200c", "\u200e", "\ufe0f", "\u00a0\u200d\u3000"]

bad_names = pytest.mark.parametrize("name", BAD.values(), ids=BAD)


@bad_names
@pytest.mark.parametrize("field", ["name", "type", "location"])
@pytest.mark.django_db(transaction=True)
def test_no_device_registers_with_a_bad_name(server, issue, field, name):
    answer = server.register(issue()[1], {"name": "press-01", field: name})
    [error] = assert_problem(answer, 400, "invalid_registration")
    assert (error["field"], error["code"]) == (field, "control_characters")
    assert not Device.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_names_in_any_language_are_accepted(server, issue):
    _, plaintext = issue(usage_limit=len(GOOD))
    for name in GOOD:
        assert server.register(plaintext, {"name": name, "location": name}).status_code == 201
    assert set(Device.objects.values_list("name", "location")) == {(name, name) for name in GOOD}


@pytest.mark.parametrize("name", UNSEEN)
@pytest.mark.django_db(transaction=True)
def test_a_name_must_have_a_visible_character(server, issue, tenant, admin_client, name):
    assert_problem(server.register(issue()[1], {"name": name}), 400, "invalid_registration")
    page = admin_client.post(reverse("admin:devices_device_add"), {"tenant": tenant.pk, "name": name})
    assert "Must have a visible character" in page.text
    with pytest.raises(CommandError, match="visible character"):
        call_command("create_device", tenant.slug, name)
    assert not Device.objects.exists()


@bad_names
@pytest.mark.django_db
def test_no_command_accepts_a_bad_name(tenant, name):
    for arguments in (
        ["create_device", tenant.slug, name],
        ["create_device", tenant.slug, "press-01", "--type", name],
        ["create_device", tenant.slug, "press-01", "--location", name],
        ["create_tenant", "acme", "--name", name],
        ["create_provisioning_key", tenant.slug, name],
    ):
        with pytest.raises(CommandError, match="control or invisible characters"):
            call_command(*arguments)
    assert (Tenant.objects.count(), Device.objects.count(), ProvisioningKey.objects.count()) == (1, 0, 0)


@pytest.mark.parametrize("name", ["press\x00", "press\udcff"], ids=["NUL", "not UTF-8"])
@pytest.mark.django_db
def test_the_command_also_refuses_what_no_database_can_hold(tenant, name):
    with pytest.raises(CommandError, match=r"^name: "):
        call_command("create_device", tenant.slug, name)


@pytest.mark.parametrize("name", ["press-\u202e10", "press\x1b01"])
@pytest.mark.django_db
def test_no_form_accepts_a_bad_name(admin_client, tenant, name):
    device = Device.objects.create(tenant=tenant, name="press-01")
    for address, form in {
        reverse("admin:devices_device_change", args=[quote(device.pk)]): {"name": name},
        reverse("admin:devices_device_add"): {"tenant": tenant.pk, "name": name},
        reverse("admin:tenants_tenant_add"): {"slug": "acme", "name": name},
        reverse("admin:devices_provisioningkey_add"): {"tenant": tenant.pk, "label": name, "usage_limit": 1},
    }.items():
        assert "control or invisible characters" in admin_client.post(address, form).text, address
    assert (Tenant.objects.count(), Device.objects.get().name, ProvisioningKey.objects.count()) == (1, "press-01", 0)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The output of the log formatter in the settings."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    configurator = logging.config.DictConfigurator(settings.LOGGING)
    handler.setFormatter(configurator.configure_formatter(settings.LOGGING["formatters"]["line"]))
    logger = logging.getLogger("tests.names")
    logger.addHandler(handler)
    yield written
    logger.removeHandler(handler)


@bad_names
def test_a_record_is_one_line_whatever_is_in_it(log, name):
    logging.getLogger("tests.names").warning("Device %s registered", name)
    [line] = log.getvalue().splitlines()  # splits at more than LF
    assert line.endswith(f"WARNING tests.names Device {escape(name)} registered")
    assert line.isprintable()


def test_a_traceback_keeps_its_lines_but_does_not_look_like_a_record(log):
    try:
        raise ValueError(BAD["a line of its own"] + BAD["a carriage return"] + BAD["a line separator"])
    except ValueError:
        logging.getLogger("tests.names").exception("It failed", stack_info=True)
    first, *lines = log.getvalue().splitlines()
    assert first.endswith("ERROR tests.names It failed")
    assert len(lines) > 5
    assert all(line.startswith("    ") for line in lines)
    assert FORGED in log.getvalue()
    assert "\r" not in log.getvalue()


def test_a_line_has_a_bounded_length(log):
    logging.getLogger("tests.names").warning("Not Found: %s", "/" + "\u202e" * 60_000)
    [line] = log.getvalue().splitlines()
    assert line[MAX_LINE:].startswith("… (359")
    assert line.endswith(" more characters)")


@pytest.mark.parametrize("text", ["x" * 60_000, "x\n" * 60_000])
def test_a_traceback_has_a_bounded_length_and_says_what_was_raised(log, text):
    try:
        raise ValueError(text + "the end")
    except ValueError:
        logging.getLogger("tests.names").exception("It failed")
    assert len(log.getvalue()) < 150_000
    assert "more characters)" in log.getvalue()


def refused(number: int) -> logging.LogRecord:
    """The record that Django logs for a 404."""
    record = logging.LogRecord("django.request", logging.WARNING, "", 0, "Not Found: %s", (f"/{number}%s",), None)
    record.status_code = 404
    return record


def test_refusals_are_logged_once_a_minute(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    seldom, records = SeldomRefusals(), [refused(number) for number in range(5)]
    assert [bool(seldom.filter(record)) for record in records] == [True, False, False, False, False]
    assert records[0].getMessage() == "Not Found: /0%s (0 more since the last such line)"
    monkeypatch.setattr(time, "monotonic", lambda: 1060.0)
    assert seldom.filter(records[4])
    assert records[4].getMessage() == "Not Found: /4%s (4 more since the last such line)"
    failed = refused(0)
    failed.status_code = 500
    assert seldom.filter(failed)
    assert seldom.filter(logging.makeLogRecord({"msg": "of ours"}))


@pytest.mark.django_db(transaction=True)
def test_a_flood_of_refusals_does_not_fill_the_log(start_server, log_in):
    """Refused requests, of anyone or of staff without permissions: no line for each, and no traceback."""
    server = start_server(LOG_LEVEL="INFO")
    cookie = log_in(user=User.objects.create_user("staff", is_staff=True))
    before = len(own_lines(server.log))
    with httpx.Client(base_url=server.url, headers={"Cookie": cookie}, **HTTP) as client:
        for _ in range(20):
            assert client.get("/" + "x" * 30_000).status_code == 404
            assert client.post("/login/", content=b"").status_code == 403
            assert client.get(reverse("admin:devices_device_add")).status_code == 403
            assert client.get("/admin/search/?page=x").status_code == 404
            assert client.get("/alerts/", headers={"Host": "nobody"}).status_code == 400
            assert client.post("/login/", data={str(number): "" for number in range(1001)}).status_code == 400
            assert server.register("prv_x", {}).status_code == 401
    lines = own_lines(server.log)
    assert len(lines) - before <= 3, lines
    assert max(map(len, lines)) <= MAX_LINE
    server.stop()


def own_lines(text: str) -> list[str]:
    """All lines except the access log's, which the web server writes."""
    return [line for line in text.splitlines() if " uvicorn.access " not in line]
