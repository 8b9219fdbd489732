"""What docs/devices.md says is true, and its examples work as they stand."""

import gzip
import inspect
import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest
from rest_framework.exceptions import APIException, MethodNotAllowed, NotFound

from common.problems import StorageUnavailable, problem_body
from devices.authentication import InvalidDeviceKey
from ingest import errors, fields
from ingest.models import IngestBatch, IngestEvent
from tests.support.events import event, log
from tests.support.fake_site import BUSY, HANG_UP, problem
from tests.support.live import ROOT
from tests.support.real_clients import examples

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = (ROOT / "docs" / "devices.md").read_text()
NOT_OURS = 502, {"Content-Type": "text/html"}, b"<h1>Bad gateway</h1>"


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def send(pauses):
    """`send` of the page's Python example, with its pauses recorded instead of made."""
    [text] = examples("python")
    namespace: dict = {}
    exec(text, namespace)
    namespace["time"] = SimpleNamespace(sleep=pauses.append)
    return namespace["send"]


class TestPython:
    def test_it_sends_a_batch(self, send, server, key):
        events = [log(), log()]
        assert send(server.url, key, events) == []
        assert [stored.data for stored in IngestEvent.objects.order_by("id")] == [event["data"] for event in events]

    def test_a_refusal_says_what_to_fix(self, send, server, key):
        with pytest.raises(ValueError, match=r"^400 .*invalid_events.*data\.level"):
            send(server.url, key, [log(level=7)])
        assert not IngestEvent.objects.exists()

    def test_a_lenient_batch_returns_the_errors_of_what_was_left_out(self, send, server, key):
        [error] = send(server.url, key, [log(), log(level=7), log()], lenient=True)
        assert (error["index"], error["field"]) == (1, "data.level")
        assert IngestEvent.objects.count() == 2
        assert send(server.url, key, [log()], lenient=True) == []

    @pytest.mark.parametrize("answer", [HANG_UP, BUSY, NOT_OURS, problem(408), problem(429), problem(504)])
    def test_it_sends_the_same_bytes_again_after_longer_and_longer_pauses(self, send, site, pauses, answer):
        site.answers += [answer] * 9
        send(site.url, "dvc_x", [log()])
        assert len(site.bodies) == 10
        assert len(set(site.bodies)) == 1
        for pause, full in zip(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
            assert full / 2 <= pause <= full

    def test_it_waits_as_long_as_it_is_asked_to(self, send, site, pauses):
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
        values = ["7", date, "soon", "", "9" * 400]
        site.answers += [problem(503, headers={"Retry-After": value}) for value in values]
        send(site.url, "dvc_x", [log()])
        asked_for = [7, 100, 0, 0, 3600]
        for pause, asked, backoff in zip(pauses, asked_for, [1, 2, 4, 8, 16], strict=True):
            assert asked - 2 < pause <= asked + backoff

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_it_sends_the_key_nowhere_else(self, send, site, other_site, status):
        site.answers += [(status, {"Location": f"{other_site.url}/v1/ingest"}, b"")]
        with pytest.raises(ValueError, match=f"^{status} {other_site.url}/v1/ingest"):
            send(site.url, "dvc_x", [log()])
        assert other_site.received == []

    @pytest.mark.parametrize("status", [200, 400, 403])
    def test_a_page_from_an_intermediary_is_not_an_acknowledgement(self, send, site, status):
        site.answers += [(status, {"Content-Type": "text/html"}, b"<h1>Log in</h1>")]
        with pytest.raises(ValueError, match=f"^{status}  <h1>Log in</h1>"):
            send(site.url, "dvc_x", [log()], lenient=True)
        assert gzip.decompress(site.bodies[0]).startswith(b"[{")


def test_the_curl_line_works(server, key, tmp_path):
    [line] = [text for text in examples("sh") if "cpu_percent" in text]
    answer = subprocess.run(["sh", "-c", f"URL={server.url} KEY={key}\n{line}"], capture_output=True, timeout=30)
    assert b"204 No Content" in answer.stdout
    assert IngestEvent.objects.get().data == {"cpu_percent": 12.5, "memory_percent": 45.2}


class TestNames:
    """The table of "Naming a batch", row by row."""

    def post(self, server, key, name: str | None, body: bytes) -> int:
        headers = {} if name is None else {"Idempotency-Key": f'"{name}"'}
        return server.post(key, content=body, headers=headers).status_code

    @pytest.mark.parametrize(
        ("first", "second", "same_bytes", "status", "stored"),
        [
            (None, None, True, 204, 1),
            (None, None, False, 204, 2),
            ("a", "a", True, 204, 1),
            ("a", "a", False, 422, 1),
            ("a", "b", True, 204, 2),
            (None, "a", True, 204, 2),
            ("a", None, True, 204, 2),
        ],
    )
    def test_a_second_batch(self, server, key, first, second, same_bytes, status, stored):
        body = json.dumps([log()]).encode()
        assert self.post(server, key, first, body) == 204
        assert self.post(server, key, second, body if same_bytes else json.dumps([log()]).encode()) == status
        assert IngestBatch.objects.count() == stored


class TestCodes:
    """Every code that a device may receive is on the page."""

    def test_codes_of_answers(self):
        classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, APIException)]
        classes += [InvalidDeviceKey, StorageUnavailable, NotFound, MethodNotAllowed]
        codes = {c.default_code for c in classes if c.status_code >= 400}
        for file in (ROOT / "ingest").glob("*.py"):  # codes given where the exception is raised
            codes |= set(re.findall(r"""\bcode=["'](\w+)["']""", file.read_text()))
        assert {"malformed_body", "not_an_array", "too_many_events"} <= codes
        assert [code for code in sorted(codes) if f"`{code}`" not in PAGE] == []

    @pytest.mark.parametrize(("status", "title"), [(413, "Content Too Large"), (422, "Unprocessable Content")])
    def test_their_titles_are_those_of_rfc_9110(self, status, title):
        """Whichever names Python has (RFC 9457, section 4.2.1)."""
        assert json.loads(problem_body(status, "x", "x"))["title"] == title

    @pytest.mark.parametrize("name", ["bounds", "pages"])
    def test_those_of_connections_and_of_bodies(self, name):
        """Given before anything of ours runs that knows a device."""
        text = (ROOT / "ingestcloud" / f"{name}.py").read_text()
        codes = set(re.findall(r"""(?:HTTPStatus\.\w+|\(\s*\d{3}),\s*"(\w+)\"""", text))
        assert len(codes) >= 4
        assert [code for code in sorted(codes) if f"`{code}`" not in PAGE] == []

    def test_codes_of_events(self):
        classes = [c for _, c in inspect.getmembers(fields, inspect.isclass) if c.__module__ == fields.__name__]
        codes = {code for c in classes for code in c.default_error_messages} | {"required", "null", "not_an_object"}
        assert [code for code in sorted(codes) if f"`{code}`" not in PAGE] == []


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        # collectd's write_http: an array of values
        ([{"values": [1], "dstypes": ["gauge"], "time": 1e9, "host": "a", "plugin": "cpu"}], "invalid_events", "kind"),
        ({"resourceLogs": [{"scopeLogs": []}]}, "not_an_array", "array of events"),  # OTLP
        ({"kind": "log"}, "not_an_array", "array of events"),
        ([[]], "invalid_events", "object with kind, timestamp and data"),
        ([event("metric")], "invalid_events", "telemetry, log"),
    ],
)
def test_the_answer_to_a_batch_of_another_shape_says_what_is_wrong(server, key, body, code, said, kept):
    answer = server.post(key, body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert said in answer.text
    assert kept(1).get().code == code


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}, "application/json"),  # Prometheus
        ({"Content-Type": "application/x-ndjson"}, "application/json"),
        ({"Content-Type": "application/json", "Content-Encoding": "snappy"}, "gzip, deflate, zstd"),
    ],
)
def test_the_answer_to_a_body_of_another_type_says_what_is_accepted(server, key, headers, said):
    answer = server.post(key, content=b"\x00\x01", headers=headers)
    assert answer.status_code == 415
    assert said in answer.json()["detail"]
