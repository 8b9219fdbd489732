"""Every error has the same format for API clients, and is a page for people."""

import asyncio
import json
import logging
from types import SimpleNamespace

import httpx
import pytest
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import Http404

from alerts.broadcast import broadcast
from alerts.hub import Hub
from common.problems import exception_handler, problem
from common.seldom import SeldomLine
from ingest.handler import IngestHandler, send_response
from tenants.isolation import unavailable
from tests.support.assertions import assert_problem
from tests.support.events import log

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("path", ["/v1/", "/v1/ingest/", "/v1/nothing", "/api/", "/api/ws/security"])
def test_an_unknown_api_address_is_a_404_problem(server, path):
    assert_problem(httpx.get(server.url + path), 404, "not_found")
    assert_problem(httpx.post(server.url + path, content=b"x"), 404, "not_found")


def test_an_unknown_address_of_a_page_is_a_page(server):
    answer = httpx.get(f"{server.url}/nowhere")
    assert answer.status_code == 404
    assert "There is nothing at this address." in answer.text
    assert 'href="/alerts/"' in answer.text


def test_a_failing_database_is_one_line_however_many_devices_meet_it(caplog, monkeypatch):
    """They send again and again: a line for each request would fill the disk during an outage."""
    line = SeldomLine(logging.getLogger("common.problems"), logging.ERROR)
    monkeypatch.setattr("common.problems.database_failed", line)
    for _ in range(100):
        assert exception_handler(OperationalError("down"), {}).status_code == 503
    assert caplog.messages == ["The database failed: OperationalError('down')"]


@pytest.mark.once
@pytest.mark.parametrize(("error", "status"), [(PermissionDenied(), 403), (Http404(), 404), (ValueError(), None)])
def test_djangos_own_refusals_are_problems_and_what_is_unknown_is_raised(error, status):
    answer = exception_handler(error, {})
    assert (answer and answer.status_code) == status


async def test_a_failing_channel_layer_is_one_line_however_many_alerts_meet_it(caplog, monkeypatch):
    line = SeldomLine(logging.getLogger("alerts.broadcast"), logging.ERROR)
    monkeypatch.setattr("alerts.broadcast.not_broadcast", line)
    monkeypatch.setattr("alerts.broadcast.get_channel_layer", lambda: None)
    for pk in range(100):
        await broadcast([SimpleNamespace(pk=pk)])
    assert len(caplog.messages) == 1
    assert "Traceback" not in caplog.text


async def test_a_hub_without_a_channel_layer_is_one_line_until_it_is_back(caplog, monkeypatch):
    monkeypatch.setattr("alerts.hub.not_receiving", SeldomLine(logging.getLogger("alerts.hub"), logging.ERROR))
    monkeypatch.setattr("alerts.hub.RETRY_SECONDS", 0)
    monkeypatch.setattr("alerts.hub.get_channel_layer", lambda: None)
    hub, listener = Hub(), object()
    hub.add(listener)
    for _ in range(100):
        await asyncio.sleep(0)
    hub.remove(listener)
    assert len(caplog.messages) == 1


def test_a_failing_database_is_one_line_however_many_pages_meet_it(caplog, monkeypatch):
    monkeypatch.setattr("tenants.isolation.database_failed", SeldomLine(logging.getLogger("tenants"), logging.ERROR))
    for _ in range(100):
        assert unavailable(OperationalError("down")).status_code == 503
    assert caplog.messages == ["The database failed: OperationalError('down')"]


def test_a_client_that_asks_for_json_gets_a_problem_at_any_address(server):
    assert_problem(httpx.get(f"{server.url}/nothing", headers={"Accept": "application/json"}), 404, "not_found")


def test_people_get_a_page(server):
    response = httpx.get(f"{server.url}/nothing", headers={"Accept": "text/html"})
    assert (response.status_code, response.headers["Content-Type"]) == (404, "text/html; charset=utf-8")


def test_an_unsupported_method_is_a_405_problem(server):
    response = httpx.options(f"{server.url}/healthz", headers={"Accept": "application/json"})
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/login/", "/alerts/", "/admin/", "/healthz", "/readyz", "/api/schema"])
def test_whatever_is_got_has_a_head(admin_client, path):
    """RFC 9110, section 9.1: every server supports GET and HEAD."""
    assert admin_client.head(path).status_code == admin_client.get(path).status_code < 400


def test_a_wrong_host_is_a_400_problem(server):
    response = httpx.get(f"{server.url}/api/x", headers={"Host": "evil.example"})
    assert_problem(response, 400, "bad_request")


def test_the_reason_for_a_refusal_is_logged(server, key, device_key):
    server.post(key, [log(level=7)])
    line = server.log.splitlines()[-2:]
    assert any(str(device_key.device) in text and "data.level" in text for text in line), line


async def test_an_unexpected_error_of_the_endpoint_is_a_problem_and_is_logged(key, monkeypatch, caplog):
    async def fail(*arguments: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("ingest.views.read_body", fail)
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"method": "POST", "path": "/v1/ingest", "headers": [(b"x-device-key", key.encode())]}
    await IngestHandler()(scope, fail, send)
    start, body = sent
    assert (start["status"], json.loads(body["body"])["code"]) == (500, "server_error")
    assert "RuntimeError: a fault" in caplog.text


@pytest.mark.once
@pytest.mark.parametrize("response", [None, problem(400, "malformed_json", "No JSON.")])
async def test_an_answer_that_cannot_be_sent_is_one_line(response, caplog):
    async def send(message: dict) -> None:
        raise ConnectionResetError("gone")

    await send_response(response, send)
    assert caplog.messages == ["An answer could not be sent: ConnectionResetError('gone')"]


def test_healthz_and_readyz_answer(server):
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}
    response = httpx.get(f"{server.url}/readyz")
    assert (response.status_code, response.json()["status"]) == (200, "ok")


def test_readyz_says_what_is_unavailable(start_server, transactional_db):
    server = start_server(REDIS_URL="redis://127.0.0.1:1")
    response = httpx.get(f"{server.url}/readyz")
    assert response.status_code == 503
    states = response.json()
    assert (states["status"], states["database"], states["channel_layer"]) == ("unavailable", "ok", "unavailable")
    server.stop()
