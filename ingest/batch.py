"""From the bytes of a body to a checked batch."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import msgspec
from django.conf import settings

from alerts.storage import NewAlert
from devices.models import DeviceKey
from ingest.decoder import Event, decode_events
from ingest.errors import InvalidEvents, MalformedBatch, ModuleDisabled, TooManyEvents
from ingest.models import Kind
from ingest.serializers import KINDS, EventSerializer, describe_errors


@dataclass(slots=True)
class Batch:
    """A checked batch, ready to be stored."""

    key: DeviceKey
    digest: bytes
    byte_count: int
    source: str | None
    received_at: datetime
    events: list[Event]
    alerts: list[NewAlert]
    modules: set[str]


def check_batch(body: bytes, key: DeviceKey, source: str | None, received_at: datetime) -> Batch:
    """The events of `body`, checked by the compiled decoder, and where that refuses by the serializers.

    Raises MalformedBatch, TooManyEvents, InvalidEvents (naming every bad event) and ModuleDisabled.
    """
    decoded = decode_events(body)
    if decoded is None or None in decoded[1]:
        decoded = check_slowly(body, decoded)
    events, fields = decoded
    if len(events) > settings.INGEST_MAX_EVENTS:
        raise TooManyEvents(len(events), settings.INGEST_MAX_EVENTS)
    kinds = {event.kind for event in events}
    alerts = []
    if Kind.SECURITY_ALERT in kinds:
        described = zip(events, fields, strict=True)
        alerts = [make_alert(key, e, received_at, f) for e, f in described if e.kind == Kind.SECURITY_ALERT]
    modules = {module.value for kind in kinds if (module := KINDS[kind].module)}
    if modules and (off := modules.difference(key.device.tenant.modules)):
        raise ModuleDisabled(off)
    return Batch(key, hashlib.sha256(body).digest(), len(body), source, received_at, events, alerts, modules)


Decoded = tuple[list[Event], list[Any]]


def check_slowly(body: bytes, decoded: Decoded | None) -> Decoded:
    """The events and their known fields: those that were not `decoded` by their serializers, the others as they are."""
    items = parse_array(body)
    checked, errors = [], []
    for index, item in enumerate(items):
        if decoded is not None and decoded[1][index] is not None:
            checked.append((decoded[0][index], decoded[1][index]))
            continue
        serializer = EventSerializer(data=item)
        if serializer.is_valid():
            checked.append(serialized_event(serializer.validated_data))
        else:
            errors += describe_errors(index, serializer.errors)
    if errors:
        raise InvalidEvents(errors)
    return [event for event, _ in checked], [fields for _, fields in checked]


def serialized_event(valid: dict[str, Any]) -> tuple[Event, Any]:
    """What the decoder would have made of an event that its serializer found valid."""
    text = json.dumps(valid["data"], ensure_ascii=False, separators=(",", ":"))
    return Event(valid["kind"], valid["timestamp"], msgspec.Raw(text.encode())), SimpleNamespace(**valid["fields"])


def make_alert(key: DeviceKey, event: Event, received_at: datetime, fields: Any) -> NewAlert:
    """The alert that a security event with these `fields` stands for."""
    return NewAlert(
        tenant=key.device.tenant,
        device=key.device,
        timestamp=event.timestamp,
        received_at=received_at,
        title=fields.title,
        severity=fields.severity,
        source_ip=getattr(fields, "source_ip", None),
        destination_ip=getattr(fields, "destination_ip", None),
        description=getattr(fields, "description", None) or "",
    )


def parse_array(body: bytes) -> list[object]:
    """The JSON array in `body`. Raises MalformedBatch where it is none, TooManyEvents over the limit."""
    try:
        items = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise MalformedBatch("The body is nested too deeply.") from error
    except UnicodeDecodeError as error:
        raise MalformedBatch(f"The body is not UTF-8: byte {error.start} can't be read.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise MalformedBatch(f"The body is not JSON: {error.msg} at {where}.") from error
    except ValueError as error:
        raise MalformedBatch(f"The body is not JSON: {error}.") from error
    if not isinstance(items, list):
        raise MalformedBatch("The body must be a JSON array of events.", code="not_an_array")
    if len(items) > settings.INGEST_MAX_EVENTS:
        raise TooManyEvents(len(items), settings.INGEST_MAX_EVENTS)
    return items


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
