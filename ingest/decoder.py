"""The serializers, compiled into msgspec structs: the same verdict for the usual event, a hundred times as fast.

What is accepted here is a subset of what the serializers accept, with the same value stored; what is
refused here is theirs to decide and to explain. tests/test_decoder.py holds the two together.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from rest_framework import serializers

from common.headers import normalize_address
from ingest.fields import (
    INT64_MAX,
    INT64_MIN,
    ChoiceField,
    Int64Field,
    IPAddressField,
    NumberField,
    PortListField,
    TextField,
)
from ingest.serializers import KINDS, DataSerializer

REFUSALS = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)


class Event(msgspec.Struct, forbid_unknown_fields=True, gc=False, eq=False):
    """An event as it is stored: a kind, a moment in UTC, and `data` as the JSON text that was sent."""

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
        struct = msgspec.defstruct(
            f"{kind}_data", [*required, *optional], forbid_unknown_fields=True, gc=False, eq=False
        )
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


_decode_events = msgspec.json.Decoder(list[Event]).decode
_DATA_DECODERS = {kind: _DataDecoder(kind, serializer) for kind, serializer in KINDS.items()}


def decode_events(body: bytes) -> tuple[list[Event], list[Any]] | None:
    """The events of `body` and the known fields of each: None in place of those that the serializers must decide.

    None for a body that they must decide as a whole.
    """
    if b"\\u0000" in body:
        return None
    try:
        events = _decode_events(body)
    except REFUSALS:
        return None
    return events, [_decode_fields(event) for event in events]


def _decode_fields(event: Event) -> msgspec.Struct | None:
    """The known fields of `event`, whose timestamp is put into UTC. None where the serializers must decide."""
    decoder = _DATA_DECODERS[event.kind]
    try:
        fields = decoder.decode(event.data)
        if decoder.addresses:
            decoder.check_addresses(fields)
        timestamp = event.timestamp
        if timestamp.tzinfo is not UTC:
            event.timestamp = timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp.astimezone(UTC)
    except REFUSALS:
        return None
    return fields
