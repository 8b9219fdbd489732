"""What `POST /v1/ingest` answers and stores, as a device sees it."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.db import connection

from alerts.models import SecurityAlert
from ingest.models import IngestBatch, IngestEvent
from ingest.storing.writer import writer
from tests.support.assertions import assert_problem
from tests.support.events import EXAMPLES, alert, event, log, telemetry
from tests.support.servers import STACK

pytestmark = pytest.mark.django_db(transaction=True)


LOG_WITH = '[{"kind":"log","timestamp":"2026-06-06T10:00:00Z","data":{"level":"i","message":"m","x":VALUE}}]'


def test_the_tests_run_on_the_database_of_their_stack():
    assert connection.vendor == {"servers": "postgresql", "embedded": "sqlite"}[STACK]


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_example_of_the_schema_is_accepted_as_it_stands(server, key, device_key, kind):
    response = server.post(key, content=f"[{EXAMPLES[kind]}]")

    assert (response.status_code, response.content) == (204, b"")
    assert "Content-Type" not in response.headers
    sent = json.loads(EXAMPLES[kind])
    stored = IngestEvent.objects.get()
    assert (stored.kind, stored.data) == (kind, sent["data"])
    assert stored.timestamp == datetime.fromisoformat(sent["timestamp"])
    assert (stored.device, stored.tenant) == (device_key.device, device_key.device.tenant)
    assert stored.received_at == stored.batch.received_at
    assert SecurityAlert.objects.count() == (kind == "security_alert")


def test_events_of_all_kinds_can_share_a_batch(server, key, device_key):
    body = "[" + ",".join(EXAMPLES.values()) + "]"

    assert server.post(key, content=body).status_code == 204

    batch = IngestBatch.objects.get()
    assert (batch.event_count, batch.alert_count, batch.byte_count) == (5, 1, len(body))
    assert (batch.source, batch.device) == ("127.0.0.1", device_key.device)
    assert list(IngestEvent.objects.order_by("id").values_list("kind", flat=True)) == list(EXAMPLES)
    assert set(IngestEvent.objects.values_list("batch", flat=True)) == {batch.pk}


def test_a_security_alert_is_stored_as_an_alert_too(server, key, device_key):
    server.post(key, content=f"[{EXAMPLES['security_alert']}]")

    stored = SecurityAlert.objects.get()
    assert (stored.title, stored.severity, stored.group.status) == ("Port scan detected", "high", "new")
    assert (stored.source_ip, stored.destination_ip) == ("192.168.1.100", "10.0.0.1")
    assert stored.description == "SYN scan from 192.168.1.100 on 256 ports"
    assert (stored.device, stored.batch_id) == (device_key.device, IngestBatch.objects.get().pk)


@pytest.mark.parametrize(
    ("forwarded", "source"),
    [("203.0.113.7", "203.0.113.7"), ("2001:DB8::1", "2001:db8::1"), ("unknown", None), ("x" * 300, None)],
)
def test_the_source_is_the_forwarded_address_if_it_is_valid(server, key, forwarded, source):
    assert server.post(key, [log()], headers={"X-Forwarded-For": forwarded}).status_code == 204
    assert IngestBatch.objects.get().source == source


def test_an_empty_array_is_accepted_and_stores_nothing(server, key):
    assert server.post(key, []).status_code == 204
    assert not IngestBatch.objects.exists()


def test_null_means_absent(server, key):
    body = [
        alert(source_ip=None, destination_ip=None, description=None),
        event("backup_event", job_id="j", status="started", size_bytes=None, checksum_sha256=None, asset_id=None),
        event("discovery", ip="10.0.0.1", mac=None, hostname=None, open_ports=None, vendor=None),
        log(source=None),
        telemetry(interface=None, rx_bytes=None),
    ]
    assert server.post(key, body).status_code == 204
    assert SecurityAlert.objects.get().description == ""


def test_null_for_a_required_field_is_missing(server, key):
    errors = assert_problem(server.post(key, [telemetry(cpu_percent=None)]), 400, "invalid_events")
    assert [(error["field"], error["code"]) for error in errors] == [("data.cpu_percent", "required")]


def test_unknown_fields_are_kept_as_sent(server, key):
    data = {"cpu_percent": 1, "memory_percent": 2.50, "gpu": {"temp": [71.25, None, True, "°C"]}, "": "x"}
    assert server.post(key, [event("telemetry", **data)]).status_code == 204
    assert IngestEvent.objects.get().data == data


def test_empty_optional_strings_and_addresses_are_accepted(server, key):
    body = [event("discovery", ip="::1", hostname="", vendor=""), alert(source_ip="", destination_ip=""), log(level="")]
    assert server.post(key, body).status_code == 204
    assert SecurityAlert.objects.get().source_ip is None


def test_empty_addresses_are_accepted_by_the_serializers_too(server, key):
    r"""They decide a body that has \u0000 in it, which here is no NUL but a backslash and five characters."""
    assert server.post(key, [alert(r"\u0000", source_ip="", destination_ip="")]).status_code == 204
    stored = SecurityAlert.objects.get()
    assert (stored.title, stored.source_ip, stored.destination_ip) == (r"\u0000", None, None)


def test_the_last_of_duplicate_names_is_checked_and_stored(server, key):
    good = '{"level":"info","level":"warn","message":"m"}'
    bad = '{"level":"info","level":5,"message":"m"}'
    one = '[{"kind":"log","timestamp":"2026-06-06T10:00:00Z","data":%s}]'
    assert server.post(key, content=one % good).status_code == 204
    assert server.post(key, content=one % bad).status_code == 400
    assert IngestEvent.objects.get().data == {"level": "warn", "message": "m"}


BAD = {
    "missing kind": ({"timestamp": "2026-06-06T10:00:00Z", "data": {}}, "kind", "required"),
    "missing timestamp": ({"kind": "log", "data": {"level": "i", "message": "m"}}, "timestamp", "required"),
    "missing data": ({"kind": "log", "timestamp": "2026-06-06T10:00:00Z"}, "data", "required"),
    "null data": ({"kind": "log", "timestamp": "2026-06-06T10:00:00Z", "data": None}, "data", "required"),
    "data is a list": ({"kind": "log", "timestamp": "2026-06-06T10:00:00Z", "data": []}, "data", "invalid"),
    "a number": (5, None, "not_an_object"),
    "null": (None, None, "null"),
    "a list": ([], None, "not_an_object"),
    "unknown kind": (event("weather", temp=1), "kind", "invalid_choice"),
    "kind is a list": (event(["log"], temp=1), "kind", "invalid"),
    "telemetry without cpu": (event("telemetry", memory_percent=1), "data.cpu_percent", "required"),
    "telemetry without memory": (event("telemetry", cpu_percent=1), "data.memory_percent", "required"),
    "log without level": (event("log", message="m"), "data.level", "required"),
    "log without message": (event("log", level="info"), "data.message", "required"),
    "alert without title": (event("security_alert", severity="low"), "data.title", "required"),
    "alert without severity": (event("security_alert", title="t"), "data.severity", "required"),
    "discovery without ip": (event("discovery", mac="x"), "data.ip", "required"),
    "backup without job": (event("backup_event", status="s"), "data.job_id", "required"),
    "backup without status": (event("backup_event", job_id="j"), "data.status", "required"),
    "a string for a number": (telemetry(cpu_percent="12.5"), "data.cpu_percent", "invalid"),
    "true for a number": (telemetry(memory_percent=True), "data.memory_percent", "invalid"),
    "a number for a string": (log(message=5), "data.message", "invalid"),
    "a fraction for an integer": (telemetry(rx_bytes=1.5), "data.rx_bytes", "invalid"),
    "2**63": (telemetry(rx_bytes=2**63), "data.rx_bytes", "out_of_range"),
    "-2**63-1": (telemetry(tx_bytes=-(2**63) - 1), "data.tx_bytes", "out_of_range"),
    "an unknown severity": (alert(severity="urgent"), "data.severity", "invalid_choice"),
    "a severity in capitals": (alert(severity="HIGH"), "data.severity", "invalid_choice"),
    "an empty title": (alert(title=""), "data.title", "blank"),
    "a long level": (log(level="x" * 33), "data.level", "max_length"),
    "an invalid address": (alert(source_ip="10.0.0.300"), "data.source_ip", "invalid_ip"),
    "an address with a zone": (alert(source_ip="fe80::1%eth0"), "data.source_ip", "invalid_ip"),
    "an empty required address": (event("discovery", ip=""), "data.ip", "invalid_ip"),
    "ports as text": (event("discovery", ip="10.0.0.1", open_ports="22"), "data.open_ports", "invalid"),
    "a port over 65535": (event("discovery", ip="10.0.0.1", open_ports=[22, 65536]), "data.open_ports", "invalid"),
    "NUL": (log(message="a\x00b"), "data", "unstorable_text"),
    "NUL in an unknown name": (log(**{"a\x00": 1}), "data", "unstorable_text"),
    "NUL deep inside": (log(extra=[{"a": ["\x00"]}]), "data", "unstorable_text"),
    "too deep": (log(extra=json.loads("[" * 80 + "]" * 80)), "data", "too_deep"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_event_is_named_by_index_and_field(server, key, name):
    bad, field, code = BAD[name]
    errors = assert_problem(server.post(key, [log(), bad, log()]), 400, "invalid_events")
    assert [(error["index"], error["field"], error["code"]) for error in errors] == [(1, field, code)]
    assert not IngestEvent.objects.exists()


@pytest.mark.parametrize("text", [r'"\ud800"', r'"x\udfff"', r'"\u0000"'])
def test_escapes_that_no_database_can_store_are_refused(server, key, text):
    body = LOG_WITH.replace("VALUE", text)
    errors = assert_problem(server.post(key, content=body), 400, "invalid_events")
    assert (errors[0]["index"], errors[0]["code"]) == (0, "unstorable_text")


def test_every_bad_event_is_named_and_nothing_is_stored(server, key):
    body = [log(), telemetry(cpu_percent="x", memory_percent=None), log(), alert(title="", severity="no"), "x"]
    errors = assert_problem(server.post(key, body), 400, "invalid_events")
    assert [(error["index"], error["field"]) for error in errors] == [
        (1, "data.cpu_percent"),
        (1, "data.memory_percent"),
        (3, "data.title"),
        (3, "data.severity"),
        (4, None),
    ]
    assert all(error["detail"] for error in errors)
    assert not IngestBatch.objects.exists()


def test_a_wrong_timestamp_and_wrong_data_are_named_together(server, key):
    errors = assert_problem(server.post(key, [log("yesterday", message=5)]), 400, "invalid_events")
    assert {error["field"] for error in errors} == {"timestamp", "data.message"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_json"),
        (b"{", "malformed_json"),
        (b"[NaN]", "malformed_json"),
        (b"[{}]]", "malformed_json"),
        (b"[Infinity]", "malformed_json"),
        (b'["\xff"]', "malformed_json"),
        (b"[" + b"1" * 5000 + b"]", "malformed_json"),
        (b"[" * 100_000, "malformed_json"),
        (b"{}", "not_an_array"),
        (b'"text"', "not_an_array"),
        (b"null", "not_an_array"),
    ],
)
def test_a_body_that_is_not_a_json_array_is_400(server, key, body, code):
    assert_problem(server.post(key, content=body), 400, code)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "-Infinity"])
def test_numbers_that_are_not_finite_are_400(server, key, number):
    body = LOG_WITH.replace("VALUE", number)
    assert server.post(key, content=body).status_code == 400


def test_integers_at_the_limits_of_64_bits_are_stored(server, key):
    body = [telemetry(rx_bytes=2**63 - 1, tx_bytes=-(2**63), other=10**40)]
    assert server.post(key, body).status_code == 204
    data = IngestEvent.objects.get().data
    assert (data["rx_bytes"], data["tx_bytes"], data["other"]) == (2**63 - 1, -(2**63), 10**40)


def test_a_backup_event_needs_the_backup_module(server, make_key, make_tenant):
    _, key = make_key(make_tenant(backup_enabled=False))
    problem = server.post(key, [log(), event("backup_event", job_id="j", status="done")])
    assert_problem(problem, 403, "module_disabled")
    assert "backup" in problem.json()["detail"]
    assert not IngestEvent.objects.exists()
    assert server.post(key, [log()]).status_code == 204


def test_the_endpoint_accepts_only_post(server, key):
    import httpx

    for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS"):
        response = httpx.request(method, f"{server.url}/v1/ingest", headers={"X-Device-Key": key})
        assert_problem(response, 405, "method_not_allowed")
        assert response.headers["Allow"] == "POST"


def test_the_view_also_works_behind_djangos_own_handler(client, key):
    """Without `ingestcloud.asgi` in front of it: in another project's tests, or under another server."""
    headers = {"X-Device-Key": key}
    try:
        answer = client.post("/v1/ingest", data=json.dumps([log()]), content_type="application/json", headers=headers)
        assert answer.status_code == 204
        assert client.post("/v1/ingest", data="{", content_type="application/json", headers=headers).status_code == 400
        assert client.get("/v1/ingest").status_code == 405
    finally:
        writer.close()
    assert IngestEvent.objects.count() == 1


@pytest.mark.parametrize("host", ["10.1.2.3", "a name of the site's own", ""])
def test_the_key_is_enough_whatever_the_host_header_says(server, key, host):
    assert server.post(key, [log()], headers={"Host": host}).status_code == 204


def test_the_examples_here_are_those_of_the_schema():
    """Compare the copies in `tests.support.events` with the source document, if that is next to the checkout."""
    source = Path(__file__).resolve().parent.parent.parent / "shared" / "payload-schema.txt"
    if not source.exists():
        pytest.skip("the source document is not next to this checkout")
    text = re.sub(r"\s+", "", source.read_text())
    for example in EXAMPLES.values():
        assert re.sub(r"\s+", "", example) in text


def test_the_device_and_the_key_show_when_they_were_last_used(server, key, device_key):
    before = datetime.now(UTC)
    server.post(key, [log()])
    for _ in range(100):
        device_key.refresh_from_db()
        if device_key.last_used_at:
            break
    device_key.device.refresh_from_db()
    assert device_key.last_used_at >= before
    assert device_key.device.last_seen_at >= before
    assert device_key.device.is_online
