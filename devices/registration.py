"""`POST /api/v1/devices/register`: a new device registers itself, once, and gets its device key."""

import logging
from datetime import datetime, timedelta
from typing import Any, cast

from django.db import IntegrityError, transaction
from django.db.models import F
from django.http import HttpRequest
from django.utils import timezone
from rest_framework import serializers
from rest_framework.exceptions import APIException, ErrorDetail
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common import sequences
from common.headers import Headers, InvalidIdempotencyKey, idempotency_key, source_address
from common.problems import shape_errors
from common.requests import BoundedJSONParser, JSONAnyway
from common.text import printable
from common.transactions import TimeLimit
from devices.authentication import InvalidProvisioningKey, ProvisioningKeyAuthentication
from devices.keys import key_digest
from devices.models import Device, DeviceKey, ProvisioningKey
from tenants import audit
from tenants.models import ActorKind

logger = logging.getLogger(__name__)

TIME_LIMIT_SECONDS = 5.0  # for all queries of a registration
REPEAT_WITHIN = timedelta(days=1)  # for a device that never got its answer, and has been offline since
MAX_REPEATS = 3
SECRET_LENGTH = 22  # characters: 128 random bits in Base64
TOO_SHORT = f"The Idempotency-Key of a registration is a secret: at least {SECRET_LENGTH} random characters."


class InvalidRegistration(APIException):
    """400: `errors` names every bad field."""

    status_code = 400
    default_code = "invalid_registration"
    default_detail = "The registration is not valid. Nothing was stored."

    def __init__(self, errors: dict[str, list[ErrorDetail]]) -> None:
        super().__init__()
        self.errors = list(shape_errors(errors))


class DeviceNameTaken(APIException):
    """409: the tenant has a device of that name, and the request does not prove that it is the same one."""

    status_code = 409
    default_code = "device_name_taken"
    default_detail = (
        "The tenant has a device of this name. Choose another, or have a key issued for that device in the admin."
    )


class NoRepeatLeft(DeviceNameTaken):
    """409: it is the same device, but its registration can't be repeated any more."""

    default_detail = (
        "This device is registered, and its registration can't be repeated: it was repeated three times or is a day "
        "old, the device has sent a batch, or staff have changed its keys. Have a key issued for it in the admin."
    )


class RegistrationSerializer(serializers.Serializer):
    """A device as it describes itself. `null` and unknown fields are ignored."""

    name = serializers.CharField(max_length=200)
    location = serializers.CharField(max_length=200, required=False, allow_blank=True, allow_null=True)
    type = serializers.CharField(max_length=100, required=False, allow_blank=True, allow_null=True)

    # Runs after the fields' own checks: otherwise a NUL would be reported twice.
    def validate_name(self, value: str | None) -> str | None:
        printable(value or "")
        return value

    validate_location = validate_type = validate_name


class RegisteredSerializer(serializers.Serializer):
    """The device's identity from now on, and its key, which is shown only this once."""

    device_id = serializers.IntegerField()
    device_key = serializers.CharField()
    tenant_id = serializers.IntegerField()


class RegisterView(APIView):
    authentication_classes = [ProvisioningKeyAuthentication]
    content_negotiation_class = JSONAnyway
    parser_classes = [BoundedJSONParser]

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        """Start the time limit before the first query, which may take long."""
        super().setup(request, *args, **kwargs)
        # When its headers arrived, as noted by `ingestcloud.pages`: its body and its turn may take minutes, and a
        # repeat may be answered meanwhile.
        self.arrived_at = getattr(request, "scope", {}).get("arrived_at") or timezone.now()
        self.time_limit = TimeLimit(TIME_LIMIT_SECONDS)

    def perform_authentication(self, request: Request) -> None:
        with self.time_limit.reading():
            super().perform_authentication(request)

    def post(self, request: Request) -> Response:
        key = cast("ProvisioningKey", request.auth)
        secret = registration_secret(request.META)
        serializer = RegistrationSerializer(data=request.data)
        if not serializer.is_valid():
            raise InvalidRegistration(cast("dict[str, list[ErrorDetail]]", serializer.errors))
        given = {field: value or "" for field, value in serializer.validated_data.items()}
        try:
            with self.time_limit.transaction(), audit.acting(acting_key(key)):
                device, plaintext = register(key, secret, self.arrived_at, **given)
        except IntegrityError as error:  # answered 503; the repeat must not meet the next id that is taken
            if sequences.is_taken_id(error):
                sequences.set_forward()
            raise
        number = device.registration_repeats
        what = f"repeated its registration ({number} of {MAX_REPEATS})" if number else "registered"
        source = source_address(request.META) or "an unknown address"
        logger.info("Device %s of %s %s with %s from %s", device.name, key.tenant.slug, what, key, source)
        answer = {"device_id": device.pk, "device_key": plaintext, "tenant_id": device.tenant_id}
        return Response(RegisteredSerializer(answer).data, status=201, headers={"Cache-Control": "no-store"})


def acting_key(key: ProvisioningKey) -> audit.Actor:
    return audit.Actor(ActorKind.PROVISIONING_KEY, key.pk, f"{key} ({key.label})")


def registration_secret(headers: Headers) -> str | None:
    """The device's own `Idempotency-Key`, None if it sends none. Raises InvalidIdempotencyKey."""
    secret = idempotency_key(headers)
    if secret is not None and len(secret) < SECRET_LENGTH:
        raise InvalidIdempotencyKey(TOO_SHORT)
    return secret


def register(
    key: ProvisioningKey, secret: str | None, arrived_at: datetime, name: str, **fields: str
) -> tuple[Device, str]:
    """Make a device of the tenant of `key`, with a device key. This uses the provisioning key once.

    A device whose answer was lost asks again with the same `secret`. For a day, MAX_REPEATS times, and until it has
    sent a batch, it gets another device key in place of the lost one, and no further use is counted. A key made after
    `arrived_at` is not revoked: it is the answer to another request of the device, which overtook this one.

    Needs an open transaction. Raises InvalidProvisioningKey, DeviceNameTaken, NoRepeatLeft, and the database's error.
    """
    # Requests with a key run one after the other: of two from a device, the second finds what the first has made.
    if not ProvisioningKey.objects.usable().select_for_update(no_key=True).filter(pk=key.pk):
        raise InvalidProvisioningKey
    digest = key_digest(secret) if secret else None
    if digest:
        own = Device.objects.filter(tenant=key.tenant, name=name, registered_with=key, registration_digest=digest)
        if device := own.first():
            return device, repeat(device, arrived_at)
    # The use is counted first: a key that is used up must not reveal which names exist.
    if not ProvisioningKey.objects.use(key):
        raise InvalidProvisioningKey
    try:
        with transaction.atomic():
            device = Device.objects.create(
                tenant=key.tenant, name=name, registered_with=key, registration_digest=digest, **fields
            )
    except IntegrityError as error:
        if Device.objects.filter(tenant=key.tenant, name=name).exists():
            raise DeviceNameTaken from error
        raise  # such as an id that is taken because the sequence is behind its table
    return device, DeviceKey.objects.issue(device)[1]


def repeat(device: Device, arrived_at: datetime) -> str:
    """Issue another key for a registered device. Raises NoRepeatLeft."""
    keys = list(device.keys.select_for_update(no_key=True).order_by("pk"))
    # If staff have issued, rotated or revoked a key since, that is not undone.
    if len(keys) != 1 + device.registration_repeats or keys[-1].revoked_at is not None:
        raise NoRepeatLeft
    repeatable = Device.objects.filter(
        pk=device.pk,
        last_seen_at=None,
        created_at__gt=arrived_at - REPEAT_WITHIN,
        registration_repeats__lt=MAX_REPEATS,
    )
    if not repeatable.update(registration_repeats=F("registration_repeats") + 1, registration_repeated_at=arrived_at):
        raise NoRepeatLeft
    device.registration_repeats += 1
    for key in keys:
        if key.created_at < arrived_at:
            key.revoke()
    return DeviceKey.objects.issue(device)[1]
