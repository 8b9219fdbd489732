"""DRF fields that accept JSON values and convert nothing, so that the value checked is the value stored."""

import re
from datetime import datetime
from typing import Any

from rest_framework import serializers

from common.headers import normalize_address
from ingest.timestamps import parse_timestamp

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class NumberField(serializers.Field):
    """A finite JSON number. A string of digits is not one."""

    default_error_messages = {"invalid": "Must be a number."}

    def to_internal_value(self, data: object) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        return data


class Int64Field(serializers.Field):
    """A whole JSON number (`5`, and `5.0`: JSON has one type of number) within `minimum` and `maximum`."""

    default_error_messages = {
        "invalid": "Must be a whole number.",
        "out_of_range": "Must be between {minimum} and {maximum}.",
    }

    def __init__(self, *, minimum: int = INT64_MIN, maximum: int = INT64_MAX, **kwargs: Any) -> None:
        self.minimum, self.maximum = minimum, maximum
        super().__init__(**kwargs)

    def to_internal_value(self, data: object) -> int:
        if isinstance(data, bool) or not isinstance(data, int | float) or data != data // 1:
            self.fail("invalid")
        if not self.minimum <= data <= self.maximum:
            self.fail("out_of_range", minimum=self.minimum, maximum=self.maximum)
        return int(data)


class TextField(serializers.Field):
    """A JSON string of at most `max_length` characters, not blank unless `allow_blank`."""

    default_error_messages = {
        "invalid": "Must be a string.",
        "blank": "Must not be empty.",
        "max_length": "Must have at most {max_length} characters.",
    }

    def __init__(self, *, max_length: int | None = None, allow_blank: bool = True, **kwargs: Any) -> None:
        self.max_length, self.allow_blank = max_length, allow_blank
        super().__init__(**kwargs)

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if not data and not self.allow_blank:
            self.fail("blank")
        if self.max_length is not None and len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        return data


class ChoiceField(TextField):
    """One of a few words."""

    default_error_messages = {"invalid_choice": "Must be one of: {choices}."}

    def __init__(self, *, choices: list[str], **kwargs: Any) -> None:
        self.choices = frozenset(choices)
        self._listed = ", ".join(choices)
        super().__init__(**kwargs)

    def to_internal_value(self, data: object) -> str:
        text = super().to_internal_value(data)
        if text not in self.choices:
            self.fail("invalid_choice", choices=self._listed)
        return text


class IPAddressField(TextField):
    """An IPv4 or IPv6 address. Unless required, an empty string means absent, as `null` does."""

    default_error_messages = {"invalid_ip": "Must be an IPv4 or IPv6 address."}

    def to_internal_value(self, data: object) -> str | None:  # type: ignore[override]
        text = super().to_internal_value(data)
        if not text and not self.required:
            return None
        try:
            return normalize_address(text)
        except ValueError:
            self.fail("invalid_ip")


class PortListField(serializers.Field):
    """A JSON array of port numbers."""

    default_error_messages = {"invalid": "Must be an array of port numbers from 0 to 65535."}

    def to_internal_value(self, data: object) -> list[int]:
        if not isinstance(data, list):
            self.fail("invalid")
        port = Int64Field(minimum=0, maximum=65535)
        try:
            return [port.to_internal_value(item) for item in data]
        except serializers.ValidationError:
            self.fail("invalid")


class TimestampField(TextField):
    """An ISO 8601 timestamp; the value is an aware datetime in UTC."""

    default_error_messages = {
        "invalid_timestamp": "Must be an ISO 8601 timestamp of a year from 1 to 9999, such as 2026-06-06T10:00:00Z."
    }

    def to_internal_value(self, data: object) -> datetime:  # type: ignore[override]  # DRF's text becomes a moment
        text = super().to_internal_value(data)
        try:
            return parse_timestamp(text)
        except ValueError:
            self.fail("invalid_timestamp")


UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
MAX_DEPTH = 64


class StorableObjectField(serializers.Field):
    """A JSON object that a database can hold: finite numbers, no NUL, no lone surrogates, not too deep.

    PostgreSQL can store neither NUL nor lone surrogates (https://www.postgresql.org/docs/current/datatype-json.html).
    Unknown fields are checked too, because they are stored as well.
    """

    default_error_messages = {
        "invalid": "Must be an object.",
        "unstorable_text": "Text must not contain NUL or a lone surrogate.",
        "number_out_of_range": "Numbers must be finite and fit a double.",
        "too_deep": f"Must not be nested deeper than {MAX_DEPTH} levels.",
    }

    def to_internal_value(self, data: object) -> dict[str, object]:
        if not isinstance(data, dict):
            self.fail("invalid")
        self._check(data, 1)
        return data

    def _check(self, value: object, depth: int) -> None:
        if depth > MAX_DEPTH:
            self.fail("too_deep")
        if isinstance(value, str):
            if UNSTORABLE.search(value):
                self.fail("unstorable_text")
        elif isinstance(value, float):
            if value - value != 0:  # infinite: 1e999 is valid JSON
                self.fail("number_out_of_range")
        elif isinstance(value, dict):
            for name, item in value.items():
                self._check(name, depth)
                self._check(item, depth + 1)
        elif isinstance(value, list):
            for item in value:
                self._check(item, depth + 1)
