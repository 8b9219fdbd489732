"""From the bytes of a body to a checked batch."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

from django.conf import settings

from alerts.models import SecurityAlert
from devices.models import DeviceKey
from ingest.decoder import DecodedEvent, decode_events
from ingest.errors import InvalidEvents, MalformedBatch, ModuleDisabled, TooManyEvents
from ingest.models import Kind
from ingest.serializers import KINDS, EventSerializer, describe_errors


@dataclass(slots=True)
class Batch:
    """A checked batch, ready to be stored. `events` are (kind, timestamp, data as JSON text)."""

    key: DeviceKey
    digest: bytes
    byte_count: int
    source: str | None
    received_at: datetime
    events: list[tuple[str, datetime, str]]
    alerts: list[SecurityAlert]

    @property
    def modules(self) -> set[str]:
        """The tenant's modules that its kinds need."""
        return {module for kind in {event[0] for event in self.events} if (module := KINDS[kind].module)}

    def check_modules(self, enabled: Collection[str]) -> None:
        """Raises ModuleDisabled where a module that the batch needs is not among those `enabled`."""
        if off := self.modules.difference(enabled):
            raise ModuleDisabled(off)


def check_batch(body: bytes, key: DeviceKey, source: str | None, received_at: datetime) -> Batch:
    """The events of `body`, checked by the compiled decoder, and where that refuses by the serializers.

    Raises MalformedBatch, TooManyEvents, InvalidEvents (naming every bad event) and ModuleDisabled.
    """
    batch = Batch(key, hashlib.sha256(body).digest(), len(body), source, received_at, [], [])
    decoded = decode_events(body)
    # What was decoded in full needs no second look.
    whole = decoded is not None and None not in decoded
    events = cast("list[DecodedEvent]", decoded) if whole else check_slowly(body, decoded)
    if len(events) > settings.INGEST_MAX_EVENTS:
        raise TooManyEvents(len(events), settings.INGEST_MAX_EVENTS)
    for event in events:
        batch.events.append((event.kind, event.timestamp, event.data))
        if event.kind == Kind.SECURITY_ALERT:
            batch.alerts.append(make_alert(key, event.timestamp, received_at, event.fields))
    batch.check_modules(key.device.tenant.modules)
    return batch


def check_slowly(body: bytes, decoded: list[DecodedEvent | None] | None) -> list[DecodedEvent]:
    """The events that were not `decoded`, by their serializers; the others as they are."""
    items = parse_array(body)
    decoded = decoded or [None] * len(items)
    events, errors = [], []
    for index, item in enumerate(items):
        event = decoded[index]
        if event is None:
            serializer = EventSerializer(data=item)
            if not serializer.is_valid():
                errors += describe_errors(index, serializer.errors)
                continue
            event = serialized_event(serializer.validated_data)
        events.append(event)
    if errors:
        raise InvalidEvents(errors)
    return events


def serialized_event(valid: dict[str, Any]) -> DecodedEvent:
    """What the decoder would have made of an event that its serializer found valid."""
    text = json.dumps(valid["data"], ensure_ascii=False, separators=(",", ":"))
    return DecodedEvent(valid["kind"], valid["timestamp"], text, SimpleNamespace(**valid["fields"]))


def make_alert(key: DeviceKey, timestamp: datetime, received_at: datetime, fields: Any) -> SecurityAlert:
    """The alert, not yet stored, that a security event with these `fields` stands for."""
    return SecurityAlert(
        tenant=key.device.tenant,
        device=key.device,
        timestamp=timestamp,
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
