"""Identifies the sender by the key in the `X-Device-Key` or `X-Provisioning-Key` header."""

import time

from django.contrib.auth.models import AnonymousUser
from django.db.models.signals import post_delete, post_save
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from devices.keys import key_digest
from devices.models import Device, DeviceKey, ProvisioningKey
from tenants.models import Tenant

KNOWN_SECONDS = 10.0  # seconds that a key is trusted without asking the database again
MAX_KNOWN_KEYS = 10_000


class KnownKeys:
    """Keys that this process has just seen. A key, a device or a tenant that is saved in this process clears them.

    A change by another process is noticed when the batch is stored, in the same transaction.
    """

    def __init__(self) -> None:
        self._keys: dict[str, tuple[DeviceKey, float]] = {}

    def get(self, digest: str) -> DeviceKey | None:
        key, until = self._keys.get(digest, (None, 0.0))
        return key if time.monotonic() < until else None

    def add(self, key: DeviceKey) -> None:
        if len(self._keys) >= MAX_KNOWN_KEYS:
            self.clear()
        seconds = KNOWN_SECONDS
        if key.expires_at is not None:
            seconds = min(seconds, (key.expires_at - timezone.now()).total_seconds())
        self._keys[key.digest] = (key, time.monotonic() + seconds)

    def clear(self, **kwargs: object) -> None:
        self._keys.clear()


known_keys = KnownKeys()
# An `update` of a query set sends no signal, so keys stay known when it is noted that they were used.
for model in (DeviceKey, Device, Tenant):
    post_save.connect(known_keys.clear, sender=model)
    post_delete.connect(known_keys.clear, sender=model)


class InvalidDeviceKey(AuthenticationFailed):
    """401, the same for an unknown, revoked, expired or malformed key: a guesser learns nothing."""

    default_code = "invalid_device_key"
    default_detail = "The X-Device-Key header is missing, or its key is not valid."

    def __init__(self, key: DeviceKey | None = None) -> None:
        """`key` is for staff, if it is only no longer valid. The answer does not depend on it."""
        self.key = key
        super().__init__()


class DeviceKeyAuthentication(BaseAuthentication):
    """`request.auth` is the DeviceKey, with its device and tenant. A device is not a user."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, DeviceKey]:
        digest = self._digest(request)
        key = known_keys.get(digest)
        if key is None:
            key = DeviceKey.objects.select_related("device__tenant").filter(digest=digest).first()
            if key is None or not key.is_usable(timezone.now()):
                raise InvalidDeviceKey(key)
            known_keys.add(key)
        return AnonymousUser(), key

    def authenticate_header(self, request: Request) -> str:
        """Makes the refusal a 401 with this `WWW-Authenticate`."""
        return 'DeviceKey realm="ingest"'

    def known_key(self, request: Request) -> DeviceKey | None:
        """The key if it is known without asking the database. Raises InvalidDeviceKey for text that can't be a key."""
        return known_keys.get(self._digest(request))

    @staticmethod
    def _digest(request: Request) -> str:
        plaintext = request._request.META.get("HTTP_X_DEVICE_KEY", "")  # DRF would look for META in vain first
        if not plaintext.startswith(DeviceKey.START):
            raise InvalidDeviceKey
        return key_digest(plaintext)


class InvalidProvisioningKey(AuthenticationFailed):
    """401, the same for an unknown, revoked, expired, used up or malformed key."""

    default_code = "invalid_provisioning_key"
    default_detail = "The X-Provisioning-Key header is missing, or its key is not valid."


class ProvisioningKeyAuthentication(BaseAuthentication):
    """`request.auth` is the ProvisioningKey. Whether it has a use left is checked when it is used."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, ProvisioningKey]:
        digest = key_digest(request.META.get("HTTP_X_PROVISIONING_KEY", ""))
        key = ProvisioningKey.objects.usable().select_related("tenant").filter(digest=digest).first()
        if key is None:
            raise InvalidProvisioningKey
        return AnonymousUser(), key

    def authenticate_header(self, request: Request) -> str:
        """Makes the refusal a 401 with this `WWW-Authenticate`."""
        return 'ProvisioningKey realm="devices"'
