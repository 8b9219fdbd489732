"""The compiled decoder accepts no more than the serializers do, and stores the same."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.serializers import BooleanField

from ingest.checking import check_slowly, serialized_event
from ingest.decoder import _type_of, decode_events
from ingest.errors import InvalidEvents, MalformedBatch
from ingest.models import IngestEvent
from ingest.serializers import KINDS, EventSerializer
from tests.support.events import EXAMPLES
from tests.support.fuzz import FUZZ

pytestmark = pytest.mark.once

texts = st.text(max_size=40) | st.sampled_from(
    ["", "\x00", "\ud800", "😀", "x" * 33, "x" * 300, 'a\\b\tc\nd"e', "null"]
)
numbers = (
    st.integers(-(2**65), 2**65)
    | st.floats()
    | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 5.0, 1e300, 10**400, 0, -0.0])
)
addresses = st.sampled_from(
    [
        "10.0.0.1",
        "::1",
        "FE80::0:1",
        "fe80::1%eth0",
        "010.0.0.1",
        "10.0.0.300",
        "",
        "::ffff:1.2.3.4",
        "1.2.3",
        "٣.1.1.1",
    ]
)
timestamps = st.sampled_from(
    [
        "2026-06-06T10:00:00Z", "2026-06-06T10:00:00", "2026-06-06 10:00:00.1234567+0230", "2026-06-06t10:00:00,5z",
        "0001-01-01T00:00:00+05:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.9999999Z", "2016-12-31T23:59:60Z",
        "2026-06-06", "2026-06-06T10:00Z", "2026-06-06T10Z", "2026-W23-6T10:00:00Z", "20260606T100000Z",
        "2026-06-06T24:00:00Z", "2026-06-06T10:00:00-00:00", "2026-06-06T10:00:00+24:00", "1780740000", "",
    ]
) | st.datetimes().map(datetime.isoformat)  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts | addresses | timestamps,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
GOOD = {kind: json.loads(text)["data"] for kind, text in EXAMPLES.items()}


@st.composite
def events(draw):
    """Mostly valid events, with some parts replaced, added or left out."""
    kind = draw(st.sampled_from(list(KINDS)))
    data = dict(GOOD[kind])
    for name in draw(st.lists(st.sampled_from([*data, "other", "severity", "ip", "level"]), max_size=2)):
        if draw(st.booleans()):
            data[name] = draw(anything)
        else:
            data.pop(name, None)
    event = {"kind": kind, "timestamp": draw(timestamps), "data": data}
    if draw(st.integers(0, 9)) == 7:
        event[draw(st.sampled_from(["kind", "timestamp", "data", "more"]))] = draw(anything)
    return event


@st.composite
def bodies(draw):
    """JSON bodies, some with whitespace, escapes, or replaced bytes."""
    batch = draw(st.lists(events(), min_size=1, max_size=3))
    text = json.dumps(batch, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1, "\t"])))
    body = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body)


def slow_verdict(body: bytes):
    """The events and their fields as the serializers alone decide, or None if they refuse."""
    try:
        return check_slowly(body, None)
    except (InvalidEvents, MalformedBatch):
        return None


def assert_same(fast, slow) -> None:
    """Compare two pairs of (event, fields)."""
    (event, fields), (expected, expected_fields) = fast, slow
    assert (event.kind, event.timestamp) == (expected.kind, expected.timestamp)
    assert event.timestamp.tzinfo is UTC
    assert json.loads(bytes(event.data)) == json.loads(bytes(expected.data))
    for name in KINDS[event.kind]().fields:
        value, expected_value = getattr(fields, name, None), getattr(expected_fields, name, None)
        if isinstance(value, float):  # maybe from an integer beyond 2**53, which `data` keeps as sent
            expected_value = float(expected_value)
        assert value == expected_value


@pytest.mark.slow
@settings(max_examples=1500 * FUZZ)
@given(bodies())
def test_a_batch_accepted_fast_is_accepted_slowly_with_the_same_rows(body):
    decoded = decode_events(body)
    if decoded is None or None in decoded[1]:
        return
    slow = slow_verdict(body)
    assert slow is not None, body
    for fast, other in zip(zip(*decoded, strict=True), zip(*slow, strict=True), strict=True):
        assert_same(fast, other)


@pytest.mark.slow
@settings(max_examples=500 * FUZZ)
@given(st.lists(events(), min_size=1, max_size=5))
def test_each_event_accepted_fast_is_accepted_slowly_even_beside_refused_ones(batch):
    body = json.dumps(batch).encode()
    for event, fields, item in zip(*(decode_events(body) or ([], [])), json.loads(body), strict=False):
        if fields is not None:
            serializer = EventSerializer(data=item)
            assert serializer.is_valid(), (item, serializer.errors)
            assert_same((event, fields), serialized_event(serializer.validated_data))


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_usual_events_are_decoded_fast(kind):
    for data in (GOOD[kind], {name: GOOD[kind][name] for name, f in KINDS[kind]().fields.items() if f.required}):
        for timestamp in ("2026-06-06T10:00:00Z", "2026-06-06T10:00:00.5+02:00", "2026-06-06T10:00:00"):
            body = json.dumps([{"kind": kind, "timestamp": timestamp, "data": data}]).encode()
            assert None not in decode_events(body)[1]


def test_a_field_of_a_class_without_a_fast_decoder_is_noticed_when_the_server_starts():
    with pytest.raises(TypeError, match="BooleanField has no fast decoder"):
        _type_of(BooleanField())


@pytest.mark.django_db(transaction=True)
@settings(
    max_examples=150 * FUZZ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=bodies())
def test_no_body_is_a_server_error_and_what_is_stored_reads_back_equal(server, key, body):
    before = IngestEvent.objects.order_by("-id").values_list("id", flat=True).first() or 0
    answer = server.post(key, content=body)
    slow = slow_verdict(body)
    assert answer.status_code == (204 if slow is not None else 400), answer.text
    stored = list(IngestEvent.objects.filter(id__gt=before).order_by("id"))
    sent = slow[0] if slow else []
    assert len(stored) in (0, len(sent))  # also 0 if the body was a repeat
    for event, expected in zip(stored, sent, strict=False):
        assert (event.kind, event.timestamp) == (expected.kind, expected.timestamp)
        assert event.data == json.loads(bytes(expected.data))
