"""Rejected batches, kept for staff: a few of each device, for a day."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from alerts.broadcast import broadcast
from devices.authentication import InvalidDeviceKey
from devices.models import Device, DeviceKey
from ingest.checking import check_batch
from ingest.models import RejectedBatch
from ingest.storing import store_batches
from tenants.isolation import bypass_isolation

ERRORS_KEPT = 100  # per batch


@dataclass(frozen=True, slots=True)
class Rejection:
    """A body that was not stored, or the bad events of a lenient batch, and what the device was told."""

    device: Device
    source: str | None
    received_at: datetime
    status: int
    code: str
    detail: str
    errors: list[dict[str, Any]]
    body: bytes
    idempotency_key: str = ""


def keep(rejection: Rejection) -> None:
    """Store `rejection`, and delete the device's oldest ones if there are too many.

    A refused body is cut off at REJECTED_MAX_BYTES; events of a lenient batch, which its device forgets, stay whole.
    """
    body = rejection.body if rejection.status == 200 else rejection.body[: settings.REJECTED_MAX_BYTES]
    news = {
        "source": rejection.source,
        "status": rejection.status,
        "detail": rejection.detail,
        "errors": rejection.errors[:ERRORS_KEPT],
        "received_at": rejection.received_at,
    }
    # A repeat need not read the body that is stored.
    _, is_new = RejectedBatch.objects.defer("body").update_or_create(
        device=rejection.device,
        digest=hashlib.sha256(rejection.body).digest(),
        code=rejection.code,
        idempotency_key=rejection.idempotency_key,
        defaults=news | {"times": F("times") + 1},
        create_defaults=news
        | {
            "tenant_id": rejection.device.tenant_id,
            "body": body,
            "byte_count": len(rejection.body),
            "first_received_at": rejection.received_at,
        },
    )
    if is_new:
        _forget_oldest(rejection.device)


def _forget_oldest(device: Device) -> None:
    rows = RejectedBatch.objects.filter(device=device)
    too_many = rows.order_by("-received_at", "-pk").values_list("pk", flat=True)[settings.REJECTED_PER_DEVICE :]
    RejectedBatch.objects.filter(pk__in=list(too_many)).delete()


def send_again(rejected: RejectedBatch) -> int:
    """Store `rejected` as if its device sent it now, delete it, and return the number of its events.

    Raises any refusal of a post, such as MalformedBatch or InvalidEvents, InvalidDeviceKey if the device has no usable
    key, and the database's error.
    """
    keys = DeviceKey.objects.usable().filter(device=rejected.device_id).select_related("device__tenant")
    key = keys.first()
    if key is None:
        raise InvalidDeviceKey
    batch = check_batch(bytes(rejected.body), key, rejected.source, timezone.now())
    batch.idempotency_key = rejected.idempotency_key or None
    with bypass_isolation():  # like the writer: a page's user may insert none of these rows
        outcome = store_batches([batch])
    for refusal in outcome.refused.values():  # of the only batch
        raise refusal
    rejected.delete()
    if outcome.alerts:
        transaction.on_commit(lambda: async_to_sync(broadcast)(outcome.alerts))
    return len(batch.events)


def delete_expired(now: datetime) -> int:
    """Delete the expired rejected batches, and return their number."""
    return RejectedBatch.objects.filter(received_at__lt=oldest_kept(now)).delete()[0]


def oldest_kept(now: datetime) -> datetime:
    return now - timedelta(hours=settings.REJECTED_HOURS)
