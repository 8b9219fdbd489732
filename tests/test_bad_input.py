"""Bad input is never accepted and never causes a fault: no answer is a 500, nothing hangs, nothing is stored."""

import gzip
import json
import socket
import struct
import zlib

import httpx
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from websockets.exceptions import InvalidStatus

from ingest.models import IngestBatch, IngestEvent
from tests.support.assertions import assert_problem
from tests.support.events import EXAMPLES, log
from tests.support.sockets import ping

pytestmark = pytest.mark.django_db(transaction=True)

GOOD = json.dumps([log()]).encode()
MAX_BYTES = 5 * 1024 * 1024


def with_value(value: str, name: str = "message", kind: str = "log") -> bytes:
    """The example of `kind` with its field `name`, existing or new, set to the JSON `value`."""
    event = json.loads(EXAMPLES[kind])
    event["data"][name] = "VALUE"
    return json.dumps([event]).replace('"VALUE"', value).encode()


def with_timestamp(value: str) -> bytes:
    return b'[{"kind": "log", "timestamp": %s, "data": {"level": "info", "message": "x"}}]' % value.encode()


BODIES = {
    "NUL in a string": with_value(r'"a\u0000b"'),
    "NUL in an unknown field": with_value(r'"a\u0000b"', "other"),
    "NUL in a name": with_value('1, "a\\u0000b": 2'),
    "a raw NUL byte": GOOD.replace(b"line", b"li\x00ne"),
    "a lone surrogate": with_value(r'"\ud800"'),
    "a lone surrogate in a name": with_value(r'"x", "\udfff": 2'),
    "a lone surrogate deep in an unknown field": with_value(r'[{"a": ["\ud83d"]}]', "other"),
    "a surrogate in UTF-8": with_value('"x"').replace(b'"x"', b'"\xed\xa0\x80"'),
    "invalid UTF-8": GOOD.replace(b"line", b"li\xffne"),
    "overlong UTF-8": GOOD.replace(b"line", b"li\xc0\xafne"),
    "UTF-16": GOOD.decode().encode("utf-16"),
    "UTF-32 without a byte-order mark": GOOD.decode().encode("utf-32-le"),
    "only a byte-order mark": b"\xef\xbb\xbf",
    "NaN": with_value("NaN", "cpu_percent", "telemetry"),
    "Infinity": with_value("-Infinity", "other"),
    "a number too large for a float": with_value("1e999", "cpu_percent", "telemetry"),
    "a number too large for a float, in an unknown field": with_value("1e999", "other"),
    "an integer of 5,000 digits": with_value("9" * 5000, "other"),
    "an integer beyond 64 bits": with_value("9223372036854775808", "rx_bytes", "telemetry"),
    "100,000 levels of arrays": b"[" * 100_000 + b"]" * 100_000,
    "100,000 levels of objects": b'[{"a":' * 100_000,
    "deep data": with_value("[" * 5000 + "]" * 5000, "other"),
    "null in the array": b"[null]",
    "an array in the array": b"[[]]",
    "text after the end": GOOD + b"x",
    "two arrays": GOOD + GOOD,
    "a trailing comma": GOOD[:-1] + b",]",
    "a comment": b"[/* none */]",
    "single quotes": GOOD.replace(b'"', b"'"),
    "true for a number": with_value("true", "cpu_percent", "telemetry"),
    "true for an integer": with_value("false", "rx_bytes", "telemetry"),
    "a string for a number": with_value('"12"', "memory_percent", "telemetry"),
    "port 65536": with_value("[65536]", "open_ports", "discovery"),
    "port -1": with_value("[-1]", "open_ports", "discovery"),
    "port 1.5": with_value("[1.5]", "open_ports", "discovery"),
    "an IPv6 address with a zone": with_value('"fe80::1%eth0"', "ip", "discovery"),
    "an IPv4 address with five parts": with_value('"1.2.3.4.5"', "source_ip", "security_alert"),
    "an address as a number": with_value("16909060", "source_ip", "security_alert"),
    "the last of two duplicate names is bad": with_value('"x", "level": 5'),
    "no kind": b'[{"timestamp": "2026-06-06T10:00:00Z", "data": {}}]',
    "an unhashable kind": b'[{"kind": ["log"], "timestamp": "2026-06-06T10:00:00Z", "data": {}}]',
    "data as an array": b'[{"kind": "log", "timestamp": "2026-06-06T10:00:00Z", "data": []}]',
}
TIMESTAMPS = [
    '"2026-13-06T10:00:00Z"', '"2026-02-30T10:00:00Z"', '"2026-06-06T24:00:01Z"', '"2026-06-06T10:60:00Z"',
    '"2026-06-06T10:00:61Z"', '"2026-06-06T10:00:00+24:00"', '"2026-06-06"', '"10:00:00Z"', '"0000-01-01T00:00:00Z"',
    '"10000-01-01T00:00:00Z"', '"9999-12-31T23:59:59-14:00"', '"0001-01-01T00:00:00+14:00"', '"2026-W23-6T10:00:00Z"',
    '"\uff12\uff10\uff12\uff16-06-06T10:00:00Z"', '"2026-06-06T10:00:00Z "', '"now"', '""', "1780740000",
    "null", "[]", "{}", "true",
]  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_400_and_even_lenient_handling_stores_nothing(server, key, name, kept):
    response = server.post(key, content=BODIES[name])
    assert (response.status_code, response.headers["Content-Type"]) == (400, "application/problem+json")
    lenient = server.post(key, content=BODIES[name], headers={"Prefer": "handling=lenient"})
    assert lenient.status_code in (200, 400)
    assert not IngestEvent.objects.exists()
    assert kept(1)


@pytest.mark.parametrize("timestamp", TIMESTAMPS)
def test_an_invalid_timestamp_is_400(server, key, timestamp):
    errors = assert_problem(server.post(key, content=with_timestamp(timestamp)), 400, "invalid_events")
    assert [(error["index"], error["field"]) for error in errors] == [(0, "timestamp")]


def bomb() -> bytes:
    """A gzip stream of a megabyte that inflates to a gigabyte. To compress a gigabyte would take seconds."""
    compressor = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    head = compressor.compress(b"[") + compressor.flush(zlib.Z_FULL_FLUSH)
    # After a full flush nothing refers back, so what follows may be repeated.
    mebibyte = compressor.compress(b" " * 2**20) + compressor.flush(zlib.Z_FULL_FLUSH)
    return head + mebibyte * 1024


BOMB = bomb()
COMPRESSED = {
    "a bomb": (BOMB, 413),
    "a bomb in a bomb": (gzip.compress(BOMB), 400),
    "a bad member after many empty ones": (gzip.compress(b"") * 10_000 + gzip.compress(b"[}"), 400),
    "truncated": (gzip.compress(GOOD)[:-9], 400),
    "without its last four bytes": (gzip.compress(GOOD)[:-4], 400),
    "empty": (b"", 400),
    "not gzip": (GOOD, 400),
    "deflate": (zlib.compress(GOOD), 400),
    "a wrong checksum": (gzip.compress(GOOD)[:-8] + b"\0" * 8, 400),
    "text after the end": (gzip.compress(GOOD) + b"x", 400),
    "a truncated second member": (gzip.compress(GOOD) + gzip.compress(GOOD)[:10], 400),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_bad_compressed_body_is_refused(server, key, name):
    body, status = COMPRESSED[name]
    response = server.post(key, content=body, headers={"Content-Encoding": "gzip"})
    assert response.status_code == status, response.text
    assert not IngestBatch.objects.exists()


def exchange(server, head: str, body: bytes = b"") -> bytes:
    """The server's answer to these raw bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
        connection.sendall(f"POST /v1/ingest HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode("latin1") + body)
        return connection.recv(65536)


def test_false_lengths_are_refused(server, key):
    given = f"X-Device-Key: {key}\r\nContent-Type: application/json\r\n"
    assert exchange(server, f"{given}Content-Length: 300000000\r\n").startswith(b"HTTP/1.1 413 ")
    assert exchange(server, f"{given}Content-Length: 99999999999999999999999\r\n")[9:10] == b"4"
    assert exchange(server, f"{given}Content-Length: -1\r\n", GOOD)[9:10] == b"4"
    assert exchange(server, f"{given}Content-Length: 5\r\nContent-Length: 6\r\n", GOOD)[9:10] == b"4"
    # The bytes beyond the declared length are taken for another request, which is malformed.
    assert exchange(server, f"{given}Content-Length: {len(GOOD) - 1}\r\n", GOOD)[9:10] == b"4"
    assert exchange(server, f"{given}Transfer-Encoding: chunked\r\n", b"zz\r\n")[9:10] == b"4"
    assert not IngestBatch.objects.exists()
    assert server.post(key, content=GOOD).status_code == 204


@pytest.mark.parametrize(
    "header",
    [
        "X-Device-Key: ",
        "X-Device-Key: dvc_",
        "X-Device-Key: {key} {key}",
        "X-Device-Key: {key},{key}",
        "X-Device-Key: {key}\r\nX-Device-Key: {key}",
        "X-Device-Key: {key}ö",
        "X-Device-Key: \xff\xfe",
        "X-Device-Key: dvc_%00",
        "X_Device_Key: {key}",
        "Authorization: Bearer {key}",
        "Cookie: X-Device-Key={key}",
    ],
)
def test_a_malformed_or_misplaced_key_is_401(server, key, header):
    head = header.replace("{key}", key) + f"\r\nContent-Type: application/json\r\nContent-Length: {len(GOOD)}\r\n"
    assert exchange(server, head, GOOD).startswith(b"HTTP/1.1 401 ")
    assert not IngestBatch.objects.exists()


@pytest.mark.parametrize(
    "name", ["X-Device-Key", "Content-Type", "Content-Encoding", "Prefer", "Idempotency-Key", "X-Other"]
)
def test_a_header_of_a_megabyte_is_refused(server, key, name):
    head = f"{name}: {'x' * 2**20}\r\nX-Device-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    try:
        answer = exchange(server, head, b"[]")
    except ConnectionError:  # the server closed the connection without reading it
        answer = b"HTTP/1.1 4"
    assert answer[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 2", b"")
    assert server.post(key, content=GOOD).status_code == 204


NONSENSE = [
    "\x00", "a\x00b", "\ud800".encode("utf-8", "surrogatepass").decode("latin1"), "'", "%", "\\", "1e999", "NaN", "-1",
    "9" * 30, "9" * 5000, "٣", "[", "{", "<script>", "x" * 20_000, "2026-13-45", "0", "None", "true", "1,2",
    "' OR 1=1 --",
]  # fmt: skip


NASTY = ["a\x00b", "9" * 30, "-1", "'"]


@pytest.fixture
def admin(db) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("admin"))
    return client


LISTS = {
    "tenants_tenant": ["module"],
    "devices_device": ["tenant__id__exact", "online", "type"],
    "devices_devicekey": ["state", "device__id__exact"],
    "alerts_securityalert": ["tenant__id__exact", "device__id__exact", "severity__exact", "status__exact"],
    "ingest_ingestevent": [
        "kind__exact",
        "tenant__id__exact",
        "device__id__exact",
        "batch",
        "around",
        "since",
        "until",
        "clock",
        "before",
        "after",
        "q",
    ],
    "ingest_ingestbatch": ["tenant__id__exact", "received_at_from_0"],
    "ingest_rejectedbatch": ["code", "tenant__id__exact"],
    "auth_user": ["is_staff__exact"],
}


@pytest.mark.parametrize("name", LISTS)
def test_nonsense_in_an_admin_list_causes_no_server_error(admin, server, key, name):
    server.post(key, content=b"[{")
    server.post(key, content=GOOD)
    url = reverse(f"admin:{name}_changelist")
    tried = [(parameter, value) for parameter in [*LISTS[name], "o", "p", "e", "unknown"] for value in NASTY]
    for parameter, value in [*tried, *(("q", value) for value in NONSENSE)]:
        answer = admin.get(url, {parameter: value})
        assert answer.status_code in (200, 302, 400), (parameter, value)
    for value in NONSENSE:
        page = f"{url}{value.replace('/', '_')}/change/".replace("\x00", "%00")
        assert admin.get(page).status_code < 500, value


def test_nonsense_in_forms_and_urls_causes_no_server_error(server, admin):
    for value in NONSENSE:
        for url in ("/alerts/", "/login/", "/", "/healthz"):
            assert admin.get(url, {"next": value, "tenant": value, "page": value}).status_code < 500
        assert Client().post("/login/", {"username": value, "password": value}).status_code < 500
    for path in (b"/%00", b"/%ff", b"/..%2f..", b"/v1/ingest%00", b"/v1/ingest/", b"//", b"/" + b"x" * 60_000):
        with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
            connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert connection.recv(100)[9:10] in (b"2", b"3", b"4", b"")


def test_pages_refuse_large_and_unbounded_bodies(server, key):
    """Django would write the whole body to disk before a view could check it."""
    for path, head, answer in (
        ("/login/", "Content-Length: 300000000", b"413"),
        ("/admin/login/", "Content-Length: 2621441", b"413"),
        ("/v1/other", "Content-Length: " + "9" * 18, b"413"),
        ("/login/", "Transfer-Encoding: chunked", b"411"),
        ("/login/", "Content-Length: 0", b"403"),  # as usual, for lack of a CSRF token
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
            assert connection.recv(100)[9:12] == answer
    refused = httpx.post(f"{server.url}/v1/other", content=iter([b"[]"]))
    assert_problem(refused, 411, "length_required")


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame (RFC 6455, section 5.2)."""
    return struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, len(payload)) + b"\0\0\0\0" + payload


FRAMES = {
    "invalid UTF-8": masked(1, b"\xff\xfe"),
    "NUL": masked(1, b"\x00"),
    "deep nesting": masked(1, b"[" * 60_000),
    "a long number": masked(1, b"9" * 50_000),
    "an object of another type": masked(1, b'{"type": ["ping"]}'),
    "binary": masked(2, b"\x00\x01"),
    "an undefined opcode": masked(7, b""),
    "a ping with too many bytes": masked(9, b"x" * 200),
    "an invalid close code": masked(8, b"\x00\x01"),
    "unmasked": b"\x81\x02{}",
    "a false length": b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_bad_frame_does_not_affect_other_sockets(the_server, transactional_db, tenant, log_in, name):
    """Tracebacks are ignored, because uvicorn prints one for text that is not UTF-8, and closes that socket."""
    cookie = log_in(tenant)
    with the_server.socket(cookie) as other, the_server.socket(cookie) as bad:
        bad.socket.sendall(FRAMES[name])
        ping(other)


@pytest.mark.parametrize("since", ["-1", "1e3", "٣", "9" * 30, "%00", "%ff", "1&since=x", "", "0x1", " 1", "null"])
def test_a_since_that_is_not_an_id_is_refused(server, tenant, log_in, since):
    with pytest.raises(InvalidStatus):
        server.socket(log_in(tenant), query=f"?since={since}")
