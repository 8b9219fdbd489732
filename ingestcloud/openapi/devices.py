"""What devices send and get, built from the serializers that check it."""

from collections.abc import Callable
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerFieldExtension
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
    extend_schema_view,
    inline_serializer,
)
from rest_framework import serializers

from devices.authentication import DeviceKeyAuthentication, ProvisioningKeyAuthentication
from devices.registration import (
    MAX_REPEATS,
    SECRET_LENGTH,
    RegisteredSerializer,
    RegisterView,
    RegistrationSerializer,
)
from ingest import fields
from ingest.body import INFLATE
from ingest.serializers import KINDS
from ingest.views import IngestView
from ingestcloud.openapi.shared import ErrorSerializer, problems


class DeviceKeyScheme(OpenApiAuthenticationExtension):
    target_class = DeviceKeyAuthentication
    name = "deviceKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "apiKey", "in": "header", "name": "X-Device-Key"}


class ProvisioningKeyScheme(OpenApiAuthenticationExtension):
    target_class = ProvisioningKeyAuthentication
    name = "provisioningKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "apiKey", "in": "header", "name": "X-Provisioning-Key"}


def text(field: fields.TextField) -> dict[str, Any]:
    lengths = {"minLength": None if field.allow_blank else 1, "maxLength": field.max_length}
    return {"type": "string"} | {name: length for name, length in lengths.items() if length is not None}


PORT = {"type": "integer", "minimum": 0, "maximum": 65535}
OPTIONAL_ADDRESS = [{"format": "ipv4"}, {"format": "ipv6"}, {"maxLength": 0}]
FIELDS: dict[type[serializers.Field], Callable[[Any], dict[str, Any]]] = {
    fields.NumberField: lambda field: {"type": "number"},
    fields.Int64Field: lambda field: {"type": "integer", "minimum": field.minimum, "maximum": field.maximum},
    fields.TextField: text,
    fields.ChoiceField: lambda field: {"type": "string", "enum": sorted(map(str, field.choices))},
    fields.IPAddressField: lambda field: {"type": "string", "anyOf": OPTIONAL_ADDRESS[: 2 if field.required else 3]},
    fields.PortListField: lambda field: {"type": "array", "items": PORT},
    fields.TimestampField: lambda field: {"type": "string", "format": "date-time"},
}


class FieldExtension(OpenApiSerializerFieldExtension):
    """How one of our fields is described. If it is optional, `null` means absent."""

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        described = FIELDS[type(self.target)](self.target)
        return described if self.target.required else {"anyOf": [described, {"type": "null"}]}


for field_class in FIELDS:
    type(f"{field_class.__name__}Extension", (FieldExtension,), {"target_class": field_class})


class LenientSerializer(serializers.Serializer):
    """The outcome of a batch that was sent with `Prefer: handling=lenient` and had bad events."""

    accepted = serializers.IntegerField()
    rejected = serializers.IntegerField()
    errors = ErrorSerializer(many=True)  # type: ignore[assignment]


def header(name: str, description: str, **kwargs: Any) -> OpenApiParameter:
    return OpenApiParameter(name, str, OpenApiParameter.HEADER, description=description, **kwargs)


EVENTS: dict[str, serializers.Serializer | type[serializers.Serializer]] = {
    str(kind): inline_serializer(
        f"EventWith{data.__name__}",
        {"kind": fields.ChoiceField(choices=[kind]), "timestamp": fields.TimestampField(), "data": data()},
    )
    for kind, data in KINDS.items()
}

extend_schema_view(
    post=extend_schema(
        operation_id="ingest",
        summary="Send a batch of events: all of it is stored, or none of it",
        request={
            "application/json": PolymorphicProxySerializer("Event", EVENTS, resource_type_field_name="kind", many=True)
        },
        parameters=[
            header("Content-Encoding", "How the body is compressed.", enum=sorted({*INFLATE, "identity"})),
            header("Prefer", "`handling=lenient` stores the good events of a batch and names the others."),
            header("Idempotency-Key", "The device's own name for this batch.", pattern='^"?[!#-\\[\\]-~]{1,255}"?$'),
        ],
        responses={
            204: OpenApiResponse(description="All events are on disk."),
            200: OpenApiResponse(LenientSerializer, description="The good events of a lenient batch are on disk."),
        }
        | problems(
            _400="The batch is malformed, or some of its events are not valid.",
            _401="The device key is missing or not valid.",
            _403="The tenant has not enabled a module that the batch needs.",
            _408="The body arrived too slowly. Send the same bytes again.",
            _413="The batch is too large.",
            _415="The content type or the encoding is not supported.",
            _422="The Idempotency-Key was used for another body.",
            _429="The device is over its event limit. Send the same bytes again later.",
            _503="The server or its database is busy or down. Send the same bytes again later.",
        ),
    )
)(IngestView)

extend_schema_view(
    post=extend_schema(
        operation_id="register",
        summary="Register a new device and get its device key",
        request={"application/json": RegistrationSerializer},
        parameters=[
            header(
                "Idempotency-Key",
                "The device's own secret, with at least 128 random bits. With the same secret it may repeat a request "
                f"whose answer was lost, {MAX_REPEATS} times within a day.",
                pattern=f'^"?[!#-\\[\\]-~]{{{SECRET_LENGTH},255}}"?$',
            )
        ],
        responses={201: RegisteredSerializer}
        | problems(
            _400="The registration or its Idempotency-Key is malformed or not valid.",
            _401="The provisioning key is missing or not valid, or has no uses left.",
            _409="The tenant has a device of this name, and this request is not a repeat, or has no repeats left.",
            _413="The body is too large.",
            _415="The content type is not supported.",
            _503="The database did not answer in time. Send the same request again later.",
        ),
    )
)(RegisterView)
