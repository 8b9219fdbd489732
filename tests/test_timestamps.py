"""The forms of ISO 8601 that devices write."""

from datetime import UTC, datetime

import pytest

from ingest.models import IngestEvent
from ingest.timestamps import parse_timestamp
from tests.support.assertions import assert_problem
from tests.support.events import log

pytestmark = pytest.mark.once

MOMENT = datetime(2026, 6, 6, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-06-06T10:00:00Z", MOMENT),
        ("2026-06-06T10:00:00z", MOMENT),
        ("2026-06-06t10:00:00Z", MOMENT),
        ("2026-06-06 10:00:00Z", MOMENT),
        ("2026-06-06T10:00:00", MOMENT),
        ("2026-06-06T10:00Z", MOMENT),
        ("2026-06-06T10:00:00+00:00", MOMENT),
        ("2026-06-06T10:00:00+0000", MOMENT),
        ("2026-06-06T10:00:00-00:00", MOMENT),
        ("2026-06-06T12:00:00+02", MOMENT),
        ("2026-06-06T12:30:00+0230", MOMENT),
        ("2026-06-06T05:30:00-04:30", MOMENT),
        ("2026-06-06T10:00:00.5Z", MOMENT.replace(microsecond=500_000)),
        ("2026-06-06T10:00:00,25", MOMENT.replace(microsecond=250_000)),
        ("2026-06-06T10:00:00.123456789+00:00", MOMENT.replace(microsecond=123_457)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2004-02-29T23:59:59Z", datetime(2004, 2, 29, 23, 59, 59, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_it_parses_each_form(text, moment):
    assert parse_timestamp(text) == moment
    assert parse_timestamp(text).tzinfo is UTC


WRONG = [
    "",
    "now",
    "2026-06-06",
    "1780740000",
    "2026-13-06T10:00:00Z",
    "2026-02-29T10:00:00Z",
    "2026-06-06T24:00:00Z",
    "2026-06-06T10:60:00Z",
    "2026-06-06T10:00:61Z",
    "2026-06-06T10:00:00+24:00",
    "2026-06-06T10:00:00 Z",
    "2026-06-06T10:00:00Z ",
    "2026-06-06T10:00:00Z\n",
    "0000-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+05:00",
    "9999-12-31T23:59:60Z",
    "9999-12-31T23:59:59.9999999Z",
    "9999-12-31T23:59:59-05:00",
    "٢٠٢٦-06-06T10:00:00Z",
]


@pytest.mark.parametrize("text", WRONG)
def test_it_refuses_anything_else(text):
    with pytest.raises(ValueError, match=r"timestamp|year|month|day"):
        parse_timestamp(text)


@pytest.mark.django_db(transaction=True)
def test_the_answer_names_the_wrong_timestamps(server, key):
    errors = assert_problem(server.post(key, [log(text) for text in WRONG]), 400, "invalid_events")
    assert [(error["index"], error["field"], error["code"]) for error in errors] == [
        (index, "timestamp", "invalid_timestamp") for index in range(len(WRONG))
    ]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2006-06-06T10:00:00+0000"])
def test_every_year_that_a_timestamp_can_hold_is_stored_and_read_back(server, key, text):
    assert server.post(key, [log(text)]).status_code == 204
    assert IngestEvent.objects.get().timestamp == parse_timestamp(text)
