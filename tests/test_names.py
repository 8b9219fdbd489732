"""What a name may not have, and what becomes in the log of whatever a client sends: one record is one line."""

import io
import logging
import logging.config
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.contrib.admin.utils import quote
from django.core.management import CommandError, call_command
from django.urls import reverse

from common.text import escape
from devices.models import Device, ProvisioningKey
from tenants.models import Tenant
from tests.support.assertions import assert_problem

FORGED = "2026-06-06 10:00:00,000 INFO devices Device press-02 of acme registered"
BAD = {
    "a line of its own": f"press-01\n{FORGED}",
    "a carriage return": f"press-01\r{FORGED}",
    "a tabulator": "press\t01",
    "a terminal's colours": "press-01\x1b[31m",
    "one of the C1 controls": "press-01\x9b31m",
    "a next line": "press-01\x85x",
    "a line separator": "press-01\u2028x",
    "a paragraph separator": "press-01\u2029x",
    "a direction overridden": "press-\u202e10",
    "a direction isolated": "press-\u206701\u2069",
    "no width": "press-\u200b01",
    "a byte order mark": "\ufeffpress-01",
    "a tag": "press-01\U000e0041",
}
GOOD = ["Prüfstand 7, Süd", "プレス 01", "مكبس\u200c", "👩\u200d🔧 №1", "a\u00a0b", "עמדה\u200e 7"]

bad_names = pytest.mark.parametrize("name", BAD.values(), ids=BAD)


@bad_names
@pytest.mark.parametrize("field", ["name", "type", "location"])
@pytest.mark.django_db(transaction=True)
def test_no_device_registers_with_it(server, issue, field, name):
    answer = server.register(issue()[1], {"name": "press-01", field: name})
    [error] = assert_problem(answer, 400, "invalid_registration")
    assert (error["field"], error["code"]) == (field, "control_characters")
    assert not Device.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_names_in_any_language_are_taken(server, issue):
    _, plaintext = issue(usage_limit=len(GOOD))
    for name in GOOD:
        assert server.register(plaintext, {"name": name, "location": name}).status_code == 201
    assert set(Device.objects.values_list("name", "location")) == {(name, name) for name in GOOD}


@bad_names
@pytest.mark.django_db
def test_no_command_takes_it(tenant, name):
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


@pytest.mark.parametrize("name", ["press\x00", "press\udcff"], ids=["NUL", "no UTF-8"])
@pytest.mark.django_db
def test_what_no_database_can_hold_is_refused_by_the_command_too(tenant, name):
    with pytest.raises(CommandError, match=r"^name: "):
        call_command("create_device", tenant.slug, name)


@pytest.mark.parametrize("name", ["press-\u202e10", "press\x1b01"])
@pytest.mark.django_db
def test_no_form_takes_it(admin_client, tenant, name):
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
    """What the formatter of the settings writes."""
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
    [line] = log.getvalue().splitlines()  # which splits at more than LF
    assert line.endswith(f"WARNING tests.names Device {escape(name)} registered")
    assert line.isprintable()


def test_a_traceback_keeps_its_lines_and_looks_like_no_record(log):
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
