"""The API does what its OpenAPI description says, whatever it is sent: schemathesis generates requests from it."""

import json
import re

import pytest
import schemathesis
from django.conf import settings as django_settings
from django.core.management import call_command
from hypothesis import HealthCheck, given, settings, strategies
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from alerts.api import urls
from devices.models import Device, ProvisioningKey
from ingest.models import IngestEvent
from tenants.models import Tenant
from tests.support.fuzz import FUZZ
from tests.support.side import Side

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]

# The addresses of the API for people, as Django knows them.
OF_PEOPLE = [f"/api/v1/{pattern.pattern}" for pattern in urls.urlpatterns] + ["/api/v1/devices/<int:pk>/events"]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture
def headers(make_key):
    key, plaintext = make_key()
    Tenant.objects.update(backup_enabled=True)
    _, provisioning = ProvisioningKey.objects.issue(key.device.tenant, "fuzz", usage_limit=1_000_000)
    return {"X-Device-Key": plaintext, "X-Provisioning-Key": provisioning}


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize(("path", "stored"), [("/v1/ingest", IngestEvent), ("/api/v1/devices/register", Device)])
def test_the_api_is_as_described(server, headers, path, stored, mode):
    operation = schemathesis.openapi.from_url(f"{server.url}/api/schema?format=json")[path]["POST"]
    before = stored.objects.count()

    @settings(max_examples=80 * FUZZ, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def call(case):
        for name, value in headers.items():
            case.headers[name] = value
        case.call_and_validate(checks=CHECKS, timeout=30)

    call()
    if mode == GenerationMode.POSITIVE:  # valid requests must be stored, or this would test nothing
        assert stored.objects.count() > before


@pytest.mark.parametrize("path", [address.replace("<int:pk>", "{id}") for address in OF_PEOPLE])
def test_the_api_for_people_is_as_described(server, log_in, path):
    side = Side("ours")
    token = "a" * 32
    cookies = f"{log_in(user=side.user)}; {django_settings.CSRF_COOKIE_NAME}={token}"
    operations = schemathesis.openapi.from_url(f"{server.url}/api/schema?format=json")[path]

    @settings(max_examples=25 * FUZZ, suppress_health_check=list(HealthCheck))
    @given(data=strategies.data())
    def call(data):
        method = data.draw(strategies.sampled_from([name.upper() for name in operations]))
        case = data.draw(
            operations[method].as_strategy(generation_mode=data.draw(strategies.sampled_from(GenerationMode)))
        )
        if data.draw(strategies.booleans()):  # else there is hardly ever such a group, filter or device
            ids = {
                "groups": side.alert.group_id,
                "suppressions": side.rule.pk,
                "filters": side.saved_filter.pk,
                "devices": side.device.pk,
            }
            case.path_parameters |= {"id": ids[path.split("/")[3]]} if "{id}" in path else {}
        case.cookies.clear()
        case.headers["Cookie"] = cookies
        case.headers["X-CSRFToken"] = token
        case.call_and_validate(checks=CHECKS, timeout=30)

    call()


@pytest.mark.parametrize("query", ["", "?format=json", "?format=yaml", "?format=nonsense", "?version=x&lang=%00"])
def test_the_description_needs_no_login(client, query):
    assert client.get(f"/api/schema{query}").status_code in (200, 404)


def test_the_description_is_complete(tmp_path):
    file = tmp_path / "schema.json"
    options = ["--format", "openapi-json", "--validate", "--fail-on-warn"]
    call_command("spectacular", *options, file=str(file))
    described = json.loads(file.read_text())
    assert set(described["paths"]) == {
        "/v1/ingest", "/api/v1/devices/register", *(address.replace("<int:pk>", "{id}") for address in OF_PEOPLE),
    }  # fmt: skip
    assert set(described["paths"]["/v1/ingest"]["post"]["responses"]) >= {"204", "200", "400", "401", "413", "503"}
    register = described["paths"]["/api/v1/devices/register"]["post"]
    assert set(register["responses"]) == {"201", "400", "401", "409", "413", "415", "503"}
    [parameter] = register["parameters"]
    assert (parameter["name"], parameter["in"], parameter.get("required", False)) == (
        "Idempotency-Key",
        "header",
        False,
    )
    for secret, is_one in {"x" * 21: False, "x" * 22: True, '"' + "x" * 22 + '"': True, "x" * 256: False}.items():
        assert bool(re.search(parameter["schema"]["pattern"], secret)) is is_one
