"""`POST /api/v1/devices/register`: a new device makes itself known, once, and gets its device key."""

import logging
from datetime import timedelta
from typing import Any, cast

from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework import serializers
from rest_framework.exceptions import APIException, ErrorDetail, ParseError
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.text import printable
from devices.authentication import InvalidProvisioningKey, ProvisioningKeyAuthentication
from devices.models import Device, DeviceKey, ProvisioningKey

logger = logging.getLogger(__name__)

REPEAT_WITHIN = timedelta(days=1)  # for a device that never saw its answer, and was offline meanwhile


class InvalidRegistration(APIException):
    """400: `errors` names every bad field."""

    status_code = 400
    default_code = "invalid_registration"
    default_detail = "The registration is not valid. Nothing was stored."

    def __init__(self, errors: dict[str, list[ErrorDetail]]) -> None:
        super().__init__()
        self.errors = [
            {
                "index": None,  # there is but one
                "field": None if field == "non_field_errors" else field,
                "code": detail.code,
                "detail": str(detail),
            }
            for field, details in errors.items()
            for detail in details
        ]


class DeviceNameTaken(APIException):
    """409: the tenant has another device of that name, or the same one that has sent already."""

    status_code = 409
    default_code = "device_name_taken"
    default_detail = (
        "The tenant has a device of this name. Choose another, or have a key issued for that device in the admin."
    )


class RegistrationSerializer(serializers.Serializer):
    """A device as it describes itself. What is `null` or not known here is left out."""

    name = serializers.CharField(max_length=200)
    location = serializers.CharField(max_length=200, required=False, allow_blank=True, allow_null=True)
    type = serializers.CharField(max_length=100, required=False, allow_blank=True, allow_null=True)

    def validate_name(self, value: str | None) -> str | None:
        printable(value or "")
        return value

    validate_location = validate_type = validate_name


class RegisteredSerializer(serializers.Serializer):
    """Who the device is from now on, and the key that is shown this once."""

    device_id = serializers.IntegerField()
    device_key = serializers.CharField()
    tenant_id = serializers.IntegerField()


class BoundedJSONParser(JSONParser):
    """DRF's, for which a body that is nested too deeply would be a fault of ours."""

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse(*args, **kwargs)
        except RecursionError as error:
            raise ParseError("The body is nested too deeply.") from error


class RegisterView(APIView):
    authentication_classes = [ProvisioningKeyAuthentication]
    parser_classes = [BoundedJSONParser]

    def post(self, request: Request) -> Response:
        serializer = RegistrationSerializer(data=request.data)
        if not serializer.is_valid():
            raise InvalidRegistration(cast("dict[str, list[ErrorDetail]]", serializer.errors))
        given = {field: value or "" for field, value in serializer.validated_data.items()}
        device, plaintext = register(cast("ProvisioningKey", request.auth), **given)
        logger.info("Device %s of %s registered with %s", device.name, device.tenant.slug, request.auth)
        answer = {"device_id": device.pk, "device_key": plaintext, "tenant_id": device.tenant_id}
        return Response(RegisteredSerializer(answer).data, status=201, headers={"Cache-Control": "no-store"})


@transaction.atomic
def register(key: ProvisioningKey, name: str, **fields: str) -> tuple[Device, str]:
    """A new device of the tenant of `key`, with a device key. It uses the provisioning key once.

    A device whose answer was lost asks again: until it has sent something, and for a day, it gets another device key
    in place of the first, and no further use is counted. Raises InvalidProvisioningKey and DeviceNameTaken.
    """
    lost = Device.objects.select_for_update().filter(
        tenant=key.tenant,
        name=name,
        registered_with=key,
        last_seen_at=None,
        created_at__gt=timezone.now() - REPEAT_WITHIN,
    )
    device = lost.first()
    if device is not None:
        for unused in device.keys.filter(revoked_at=None):
            unused.revoke()
        return device, DeviceKey.objects.issue(device)[1]
    # The use is counted first: a key without one left does not tell which names there are.
    if not ProvisioningKey.objects.use(key):
        raise InvalidProvisioningKey
    try:
        with transaction.atomic():
            device = Device.objects.create(tenant=key.tenant, name=name, registered_with=key, **fields)
    except IntegrityError as error:
        raise DeviceNameTaken from error
    return device, DeviceKey.objects.issue(device)[1]
