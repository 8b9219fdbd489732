"""From the bytes of a body to a checked batch."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from alerts.models import SecurityAlert
from devices.models import DeviceKey
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

    def check_modules(self, key: DeviceKey) -> None:
        """Raises ModuleDisabled where the tenant of `key` lacks a module that the batch needs."""
        off = {module for module in self.modules if not key.device.tenant.has_module(module)}
        if off:
            raise ModuleDisabled(off)


def check_batch(body: bytes, key: DeviceKey, source: str | None, received_at: datetime) -> Batch:
    """The events of `body`, each checked by the serializer of its kind.

    Raises MalformedBatch, TooManyEvents, InvalidEvents (naming every bad event) and ModuleDisabled.
    """
    batch = Batch(key, hashlib.sha256(body).digest(), len(body), source, received_at, [], [])
    errors: list[dict[str, object]] = []
    for index, item in enumerate(parse_array(body)):
        serializer = EventSerializer(data=item)
        if not serializer.is_valid():
            errors += describe_errors(index, serializer.errors)
            continue
        event = serializer.validated_data
        text = json.dumps(event["data"], ensure_ascii=False, separators=(",", ":"))
        batch.events.append((event["kind"], event["timestamp"], text))
        if event["kind"] == Kind.SECURITY_ALERT:
            batch.alerts.append(make_alert(key, event["timestamp"], received_at, event["fields"]))
    if errors:
        raise InvalidEvents(errors)
    batch.check_modules(key)
    return batch


def make_alert(
    key: DeviceKey, timestamp: datetime, received_at: datetime, fields: dict[str, str | None]
) -> SecurityAlert:
    """The alert, not yet stored, that a security event stands for."""
    return SecurityAlert(
        tenant=key.device.tenant,
        device=key.device,
        timestamp=timestamp,
        received_at=received_at,
        title=fields["title"],
        severity=fields["severity"],
        source_ip=fields.get("source_ip"),
        destination_ip=fields.get("destination_ip"),
        description=fields.get("description") or "",
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
