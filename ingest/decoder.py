"""The serializers, compiled into msgspec structs: the same verdict for the usual event, a hundred times as fast.

The decoder accepts a subset of what the serializers accept, and the value stored is the same; what it refuses, they
decide and explain. tests/test_decoder.py keeps the two in step.

There are two versions of each struct. The strict one knows all fields, and so has looked at every byte. If it refuses,
the tolerant one may still accept: newer firmware sends fields that this server does not know, and in every event. The
tolerant one does not check what it skips, so everything is decoded again, into plain Python objects.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from rest_framework import serializers

from common.headers import normalize_address
from ingest.fields import (
    INT64_MAX,
    INT64_MIN,
    MAX_DEPTH,
    ChoiceField,
    Int64Field,
    IPAddressField,
    NumberField,
    PortListField,
    TextField,
)
from ingest.serializers import KINDS, DataSerializer
from ingest.timestamps import parse_timestamp

REFUSALS = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)


class Event(msgspec.Struct, forbid_unknown_fields=True, gc=False, eq=False):
    """An event as it is stored: a kind, a moment in UTC, and `data` as the JSON text that was sent."""

    kind: Literal[tuple(map(str, KINDS))]  # type: ignore[valid-type]
    timestamp: datetime
    data: msgspec.Raw


class _TolerantEvent(msgspec.Struct, gc=False, eq=False):
    """An event with fields that we don't know, or a timestamp in another notation."""

    kind: Literal[tuple(map(str, KINDS))]  # type: ignore[valid-type]
    timestamp: str
    data: msgspec.Raw


def _type_of(field: serializers.Field) -> Any:
    """The msgspec type that accepts no more than `field` does."""
    match field:
        case ChoiceField():
            return Literal[tuple(sorted(field.choices))]
        case TextField():  # an address is checked as text only; `_DataDecoder` does the rest
            shortest = None if field.allow_blank else 1
            return Annotated[str, msgspec.Meta(min_length=shortest, max_length=field.max_length)]
        case NumberField():
            return float
        case Int64Field():
            # msgspec accepts no bounds beyond 64 bits, and the type itself goes to 2**64 - 1.
            return Annotated[int, msgspec.Meta(ge=max(field.minimum, INT64_MIN), le=min(field.maximum, INT64_MAX))]
        case PortListField():
            return list[Annotated[int, msgspec.Meta(ge=0, le=65535)]]
    raise TypeError(f"{type(field).__name__} has no fast decoder")


class _DataDecoder:
    """Decodes the `data` of one kind."""

    def __init__(self, kind: str, serializer: type[DataSerializer]) -> None:
        fields = serializer().fields
        required = [(name, _type_of(field)) for name, field in fields.items() if field.required]
        optional = [(name, _type_of(field) | None, None) for name, field in fields.items() if not field.required]
        named: list[Any] = [*required, *optional]
        strict = msgspec.defstruct(f"{kind}_data", named, forbid_unknown_fields=True, gc=False, eq=False)
        tolerant = msgspec.defstruct(f"{kind}_data_and_more", named, gc=False, eq=False)
        self.decode = msgspec.json.Decoder(strict).decode
        self.decode_known = msgspec.json.Decoder(tolerant).decode
        self.addresses = [(name, f.required) for name, f in fields.items() if isinstance(f, IPAddressField)]

    def normalize_addresses(self, data: msgspec.Struct) -> None:
        """Replace the addresses in `data` with their normal form. Raises ValueError for anything else."""
        for name, required in self.addresses:
            text = getattr(data, name)
            if text or required:
                setattr(data, name, normalize_address(text))
            else:
                setattr(data, name, None)


_decode_events = msgspec.json.Decoder(list[Event]).decode
_decode_tolerantly = msgspec.json.Decoder(list[_TolerantEvent]).decode
_decode_anything = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_DATA_DECODERS = {kind: _DataDecoder(kind, serializer) for kind, serializer in KINDS.items()}


def decode_events(body: bytes) -> tuple[list[Event], list[Any]] | None:
    """The events of `body` and the known fields of each, None for an event that the serializers must decide.

    Returns None if they must decide the body as a whole.
    """
    if b"\\u0000" in body:
        return None
    try:
        events = _decode_events(body)
    except REFUSALS:
        try:
            events = _tolerate(body)
        except REFUSALS:
            return None
    return events, [_decode_fields(event) for event in events]


def _tolerate(body: bytes) -> list[Event]:
    """The events of `body`. Raises one of `REFUSALS`."""
    found = _decode_tolerantly(body)
    _decode_anything(body)
    return [Event(event.kind, parse_timestamp(event.timestamp), event.data) for event in found]


def _decode_fields(event: Event) -> msgspec.Struct | None:
    """Return the known fields of `event`, and convert its timestamp to UTC. None if the serializers must decide."""
    decoder = _DATA_DECODERS[event.kind]
    try:
        try:
            fields = decoder.decode(event.data)
        except msgspec.ValidationError:
            fields = _decode_known(event, decoder)
        if decoder.addresses:
            decoder.normalize_addresses(fields)
        timestamp = event.timestamp
        if timestamp.tzinfo is not UTC:
            event.timestamp = timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp.astimezone(UTC)
    except REFUSALS:
        return None
    return fields


def _decode_known(event: Event, decoder: _DataDecoder) -> msgspec.Struct:
    """Return the known fields of `event`, and re-encode its `data` from all that was read. Raises one of `REFUSALS`."""
    fields = decoder.decode_known(event.data)
    text = bytes(event.data)
    if text.count(b"{") + text.count(b"[") >= MAX_DEPTH:  # this many may be nested too deeply
        raise ValueError("perhaps nested too deeply")
    event.data = msgspec.Raw(_encode(_decode_anything(text)))
    return fields
