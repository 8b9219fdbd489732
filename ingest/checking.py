"""From the bytes of a body to a checked batch."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import msgspec
from django.conf import settings
from rest_framework.exceptions import ErrorDetail

from alerts.new_alert import NewAlert
from devices.models import DeviceKey
from ingest.batch import BadEvents, Batch
from ingest.decoder import Event, decode_events
from ingest.errors import InvalidEvents, MalformedBatch, ModuleDisabled, TooManyEvents, TooManyValues
from ingest.models import Kind
from ingest.serializers import KINDS, ErrorList, Errors, check_event
from tenants.models import Module

MAX_VALUES = 100_000  # JSON values that a batch may have
VALUES_PER_EVENT = 100  # raises that limit if a batch may have more than a thousand events

skip_json = msgspec.json.Decoder(msgspec.Raw).decode  # parses everything and builds nothing


def check_quickly(body: bytes, key: DeviceKey, source: str | None, received_at: datetime) -> Batch | None:
    """Check `body` with the compiled decoder. Returns None if `check_batch` must decide.

    Raises MalformedBatch, TooManyValues and TooManyEvents.
    """
    check_value_count(body)
    decoded = decode_events(body)
    if decoded is None or None in decoded[1]:
        return None
    try:
        return make_batch(body, decoded, key, source, received_at)
    except ModuleDisabled:
        return None


def check_batch(body: bytes, key: DeviceKey, source: str | None, received_at: datetime) -> Batch:
    """Check `body` with the compiled decoder, and the events that it refuses with the serializers.

    This may take long. Raises MalformedBatch, TooManyValues, TooManyEvents, InvalidEvents and ModuleDisabled.
    """
    check_value_count(body)
    decoded = decode_events(body)
    if decoded is None or None in decoded[1]:
        decoded = check_slowly(body, decoded)
    return make_batch(body, decoded, key, source, received_at)


def check_leniently(
    body: bytes, key: DeviceKey, source: str | None, received_at: datetime
) -> tuple[Batch, BadEvents | None]:
    """Return the good events of `body`, as a batch with the digest of the whole body, and the bad ones.

    This may take long. Raises MalformedBatch, TooManyValues and TooManyEvents: an unreadable body has no good events.
    """
    check_value_count(body)
    good: list[Checked] = []
    rejected: list[object] = []
    errors = ErrorList()
    for index, (item, checked, wrong) in enumerate(check_each(body, decode_events(body))):
        module = KINDS[checked[0].kind].module if checked else None
        if module and module not in key.device.tenant.modules:
            wrong = {"kind": [ErrorDetail(module_off(module), code=ModuleDisabled.default_code)]}
        if checked is None or wrong:
            rejected.append(item)
            errors.add(index, wrong)
        else:
            good.append(checked)
    batch = make_batch(body, _separate(good), key, source, received_at)
    return batch, BadEvents(dump(rejected), len(rejected), errors.listed) if rejected else None


def make_batch(body: bytes, decoded: "Decoded", key: DeviceKey, source: str | None, received_at: datetime) -> Batch:
    """The batch of these events, with the alerts among them. Raises TooManyEvents and ModuleDisabled."""
    events, fields = decoded
    if len(events) > settings.INGEST_MAX_EVENTS:
        raise TooManyEvents(len(events), settings.INGEST_MAX_EVENTS)
    kinds = Counter(event.kind for event in events)
    alerts = []
    if Kind.SECURITY_ALERT in kinds:
        described = zip(events, fields, strict=True)
        alerts = [make_alert(key, e, received_at, f) for e, f in described if e.kind == Kind.SECURITY_ALERT]
    modules = {module.value for kind in kinds if (module := KINDS[kind].module)}
    if modules and (off := modules.difference(key.device.tenant.modules)):
        raise ModuleDisabled(off, len(events))
    return Batch(key, hashlib.sha256(body).digest(), len(body), source, received_at, events, kinds, alerts, modules)


def module_off(module: Module) -> str:
    return f"The tenant does not have the {module.label} module enabled."


def dump(items: list[object]) -> bytes:
    """`items` as a body. Raises MalformedBatch if they are nested too deeply."""
    try:
        return json.dumps(items, separators=(",", ":")).encode()
    except RecursionError as error:
        raise MalformedBatch("The body is nested too deeply.") from error


Checked = tuple[Event, Any]  # an event, and its known fields as attributes
Decoded = tuple[list[Event], list[Any]]  # the same for several: None among the fields if the serializers must decide


def check_slowly(body: bytes, decoded: Decoded | None) -> Decoded:
    """The events and their known fields: as `decoded`, or else checked by their serializers.

    Raises MalformedBatch, TooManyEvents and InvalidEvents.
    """
    good: list[Checked] = []
    count, errors = 0, ErrorList()
    for _, checked, wrong in check_each(body, decoded):
        if checked:
            good.append(checked)
        else:
            errors.add(count, wrong)
        count += 1
    if errors.listed:
        raise InvalidEvents(errors.listed, count - len(good), count, errors.more)
    return _separate(good)


def _separate(good: list[Checked]) -> Decoded:
    return [event for event, _ in good], [fields for _, fields in good]


def check_each(body: bytes, decoded: Decoded | None) -> Iterator[tuple[object, Checked | None, Errors]]:
    """Yield each event of `body` as sent, with either the checked event and its known fields, or its errors."""
    for index, item in enumerate(parse_array(body)):
        if decoded is not None and decoded[1][index] is not None:
            yield item, (decoded[0][index], decoded[1][index]), {}
            continue
        valid, wrong = check_event(item)
        yield item, None if wrong else serialized_event(valid), wrong


def serialized_event(valid: dict[str, Any]) -> Checked:
    """What the decoder would have made of an event that its serializer found valid."""
    text = json.dumps(valid["data"], ensure_ascii=False, separators=(",", ":"))
    return Event(valid["kind"], valid["timestamp"], msgspec.Raw(text.encode())), SimpleNamespace(**valid["fields"])


def check_value_count(body: bytes) -> None:
    """Bound the JSON values of `body`: each becomes an object, and a few megabytes may have millions.

    Each value follows a comma or an opening bracket. Those inside strings are discounted only if that matters.
    Raises TooManyValues, or MalformedBatch if a body over the limit is not JSON.
    """
    limit = max(MAX_VALUES, VALUES_PER_EVENT * settings.INGEST_MAX_EVENTS)
    if len(body) <= 2 * limit or _separators(body) <= limit or _separators(_without_strings(body, limit)) <= limit:
        return
    try:
        skip_json(body)
    except RecursionError as error:
        raise MalformedBatch("The body is nested too deeply.") from error
    except msgspec.MsgspecError as error:
        raise MalformedBatch(f"The body is not JSON: {error}.") from error
    raise TooManyValues(limit)


def _separators(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _without_strings(body: bytes, limit: int) -> bytes:
    """`body` without its strings, or unchanged if it has more of them than `limit` values can have."""
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if unescaped.count(b'"') > 4 * limit:  # a value has at most a name and a string, two quotation marks each
        return body
    return b"".join(unescaped.split(b'"')[::2])


def make_alert(key: DeviceKey, event: Event, received_at: datetime, fields: Any) -> NewAlert:
    """The alert for a security event with these `fields`."""
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
    """The JSON array in `body`. Raises MalformedBatch if it is not one, TooManyEvents if it is over the limit."""
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
