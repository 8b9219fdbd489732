"""The serializers, compiled into msgspec structs: the same verdict for the usual event, a hundred times as fast.

What is accepted here is a subset of what the serializers accept, with the same value stored; what is
refused here is theirs to decide and to explain. tests/test_decoder.py holds the two together.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from rest_framework import serializers

from ingest.fields import (
    INT64_MAX,
    INT64_MIN,
    ChoiceField,
    Int64Field,
    IPAddressField,
    NumberField,
    PortListField,
    TextField,
    normalize_address,
)
from ingest.serializers import KINDS, DataSerializer

ONE_LINE = str.maketrans("\t\n\r", "   ")  # JSON has raw control characters between its values only
REFUSALS = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)


class DecodedEvent:
    """An accepted event: `data` is its JSON text on one line, `fields` its known fields."""

    __slots__ = ("data", "fields", "kind", "timestamp")

    def __init__(self, kind: str, timestamp: datetime, data: str, fields: Any) -> None:
        self.kind, self.timestamp, self.data, self.fields = kind, timestamp, data, fields


class _Event(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    kind: Literal[tuple(map(str, KINDS))]  # type: ignore[valid-type]
    timestamp: datetime
    data: msgspec.Raw


def _type_of(field: serializers.Field) -> Any:
    """The msgspec type that accepts no more than `field` does."""
    match field:
        case ChoiceField():
            return Literal[tuple(sorted(field.choices))]
        case TextField():  # of an address the text alone; `_DataDecoder` does the rest
            shortest = None if field.allow_blank else 1
            return Annotated[str, msgspec.Meta(min_length=shortest, max_length=field.max_length)]
        case NumberField():
            return float
        case Int64Field():
            # msgspec takes no bounds beyond 64 bits, and the type itself goes to 2**64 - 1.
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
        struct = msgspec.defstruct(f"{kind}_data", [*required, *optional], forbid_unknown_fields=True, gc=False)
        self.decode = msgspec.json.Decoder(struct).decode
        self.addresses = [(name, f.required) for name, f in fields.items() if isinstance(f, IPAddressField)]

    def check_addresses(self, data: msgspec.Struct) -> None:
        """Put the normal form of its addresses into `data`. Raises ValueError where one is none."""
        for name, required in self.addresses:
            text = getattr(data, name)
            if text or required:
                setattr(data, name, normalize_address(text))
            else:
                setattr(data, name, None)


_decode_events = msgspec.json.Decoder(list[_Event]).decode
_DATA_DECODERS = {kind: _DataDecoder(kind, serializer) for kind, serializer in KINDS.items()}


def decode_events(body: bytes) -> list[DecodedEvent | None] | None:
    """The events of `body`, None in place of one that the serializers must decide, None for a body they must."""
    if b"\\u0000" in body:
        return None
    try:
        events = _decode_events(body)
    except REFUSALS:
        return None
    several_lines = b"\n" in body or b"\t" in body or b"\r" in body
    decoded: list[DecodedEvent | None] = []
    for event in events:
        decoder = _DATA_DECODERS[event.kind]
        try:
            data = decoder.decode(event.data)
            if decoder.addresses:
                decoder.check_addresses(data)
            timestamp = event.timestamp
            if timestamp.tzinfo is not UTC:
                timestamp = timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp.astimezone(UTC)
        except REFUSALS:
            decoded.append(None)
            continue
        text = str(event.data, "utf-8")
        decoded.append(DecodedEvent(event.kind, timestamp, text.translate(ONE_LINE) if several_lines else text, data))
    return decoded
