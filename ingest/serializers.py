"""The only description of an event: one serializer per kind, chosen by `kind`.

Required fields must be present, `null` means absent, and unknown fields are kept: firmware newer than this server must
not lose data. Nothing is converted; `data` is stored as it was sent.
"""

from typing import Any, cast

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from alerts.models import Severity
from common.problems import shape_errors
from ingest.fields import (
    ChoiceField,
    Int64Field,
    IPAddressField,
    NumberField,
    PortListField,
    StorableObjectField,
    TextField,
    TimestampField,
)
from ingest.models import Kind
from tenants.models import Module

ERRORS_LISTED = 100  # per batch; the others are only counted

Errors = dict[str, list[ErrorDetail]]  # by field


class DataSerializer(serializers.Serializer):
    """What the kinds have in common. `module` names the tenant's module that a kind needs."""

    module: Module | None = None

    def to_internal_value(self, data: dict[str, object]) -> dict[str, object]:
        return super().to_internal_value({name: value for name, value in data.items() if value is not None})


class TelemetrySerializer(DataSerializer):
    """Network and system metrics of the appliance."""

    cpu_percent = NumberField()
    memory_percent = NumberField()
    interface = TextField(required=False)
    rx_bytes = Int64Field(required=False)
    tx_bytes = Int64Field(required=False)


class LogSerializer(DataSerializer):
    """A system or application log entry. Any level will do: one odd level must not block a batch."""

    level = TextField(max_length=32)
    message = TextField()
    source = TextField(required=False)  # type: ignore[assignment]  # DRF's Field has a source too


class SecurityAlertSerializer(DataSerializer):
    """A security event, stored as an alert too and broadcast."""

    title = TextField(max_length=1000, allow_blank=False)
    severity = ChoiceField(choices=Severity.values)
    source_ip = IPAddressField(required=False)
    destination_ip = IPAddressField(required=False)
    description = TextField(required=False)


class DiscoverySerializer(DataSerializer):
    """An asset found on the network segment."""

    ip = IPAddressField()
    mac = TextField(required=False, max_length=64)
    hostname = TextField(required=False, max_length=255)
    open_ports = PortListField(required=False)
    vendor = TextField(required=False, max_length=255)


class BackupEventSerializer(DataSerializer):
    """A step of a backup job."""

    module = Module.BACKUP

    job_id = TextField(max_length=255, allow_blank=False)
    status = TextField(max_length=64, allow_blank=False)
    asset_id = TextField(required=False, max_length=255)
    size_bytes = Int64Field(required=False)
    checksum_sha256 = TextField(required=False, max_length=255)


KINDS: dict[str, type[DataSerializer]] = {
    Kind.TELEMETRY: TelemetrySerializer,
    Kind.LOG: LogSerializer,
    Kind.SECURITY_ALERT: SecurityAlertSerializer,
    Kind.DISCOVERY: DiscoverySerializer,
    Kind.BACKUP_EVENT: BackupEventSerializer,
}


class EventSerializer(serializers.Serializer):
    """One event: `kind`, `timestamp` and the `data` that the kind describes.

    `validated_data` has `kind`, `timestamp` (UTC), `data` (as sent) and `fields` (the known ones, checked).
    """

    default_error_messages = {"invalid": "An event must be an object with kind, timestamp and data."}

    kind = ChoiceField(choices=list(KINDS))
    timestamp = TimestampField()
    data = StorableObjectField()  # type: ignore[assignment]

    def to_internal_value(self, data: object) -> dict[str, object]:
        if not isinstance(data, dict):
            detail = ErrorDetail(str(self.error_messages["invalid"]), code="not_an_object")
            raise serializers.ValidationError({"non_field_errors": [detail]})
        event: dict[str, Any] = {}
        errors: Errors = {}
        try:
            event = super().to_internal_value({name: value for name, value in data.items() if value is not None})
        except serializers.ValidationError as error:
            errors = dict(cast("Errors", error.detail))
        # Even if the timestamp is wrong: the answer names everything that needs fixing.
        kind, sent = data.get("kind"), data.get("data")
        if isinstance(kind, str) and kind in KINDS and "data" not in errors:
            try:
                event["fields"] = _DATA[kind].run_validation(sent)
            except serializers.ValidationError as error:
                errors |= {f"data.{name}": details for name, details in cast("Errors", error.detail).items()}
        if errors:
            raise serializers.ValidationError(errors)
        return event


# One of each for all events: making a serializer takes much longer than checking an event.
_DATA = {kind: serializer() for kind, serializer in KINDS.items()}
_EVENT = EventSerializer()


def check_event(item: object) -> tuple[dict[str, Any], Errors]:
    """The `validated_data` of an event, or its errors by field. Thread-safe."""
    try:
        return _EVENT.run_validation(item), {}
    except serializers.ValidationError as error:
        if isinstance(error.detail, dict):
            return {}, cast("Errors", error.detail)
        return {}, cast("Errors", {"non_field_errors": error.detail})  # it is `null`


class ErrorList:
    """The first errors of a batch, as the `{index, field, code, detail}` of a problem document."""

    def __init__(self) -> None:
        self.listed: list[dict[str, Any]] = []
        self.more = 0  # not listed

    def add(self, index: int, errors: Errors) -> None:
        for error in shape_errors(errors, index):
            if len(self.listed) < ERRORS_LISTED:
                self.listed.append(error)
            else:
                self.more += 1
