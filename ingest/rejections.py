"""Rejected batches, kept for staff for a day: a few refused ones of each device, and more of those stored in part."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from rest_framework.exceptions import APIException

from alerts.broadcast import broadcast
from devices.authentication import InvalidDeviceKey
from devices.models import Device, DeviceKey
from ingest.batch import Batch
from ingest.checking import check_batch
from ingest.errors import IdempotencyKeyReused
from ingest.models import IngestBatch, RejectedBatch
from ingest.storing import store_batches
from tenants import audit
from tenants.isolation import bypass_isolation
from tenants.models import Verb

ERRORS_KEPT = 100  # per batch
LENIENT_PER_DEVICE = 1000  # lenient batches whose bad events are kept: their device has forgotten them
NAME_SUFFIX = " rejected"  # follows the name of a batch in the name of its bad events
LEFT_OUT = "events_left_out"  # the code of bad events: a refusal of the same body must not be the same row


class NotTheRest(APIException):
    """For staff: bad events of a lenient batch that are not exactly those that are missing from what is stored."""

    def __init__(self, stored: int | None) -> None:
        if stored is None:
            super().__init__(
                "The other events of its batch are not stored. Its device was told so, and may send all of it again."
            )
        else:
            super().__init__("Its batch was stored with some of these events. Any others are a rejected batch too.")


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
    batch_digest: bytes | None = None
    good_events: int | None = None


def keep_bad_events(batch: Batch, rejection: Rejection) -> int | None:
    """Keep the bad events of the lenient `batch`. Returns how many of its events are stored already, None if it is new.

    If other events of it were good the first time, because a module was switched since, nothing more is kept: what was
    bad then is kept already, and what is bad now may be stored. Raises IdempotencyKeyReused.
    """
    stored = stored_events(batch.key.device_id, batch.idempotency_key, batch.digest)
    if stored is None or stored == len(batch.events):
        keep(rejection)
    return stored


def stored_events(device_id: int, name: str | None, digest: bytes) -> int | None:
    """How many events of a batch are stored, None if it is not. Raises IdempotencyKeyReused."""
    rows = IngestBatch.objects.filter(device=device_id, idempotency_key=name)
    row = (rows if name else rows.filter(digest=digest)).values_list("digest", "event_count").first()
    if row is None:
        return None
    if bytes(row[0]) != digest:
        raise IdempotencyKeyReused
    return row[1]


def name_of_rest(batch: Batch) -> str:
    """The name of the bad events of `batch`. No device can send one with a space.

    Not the batch's own: its good events have that. Not none at all: another batch may have the same bad events.
    """
    return f"{batch.idempotency_key}{NAME_SUFFIX}" if batch.idempotency_key else f"rejected of {batch.digest.hex()}"


def keep(rejection: Rejection) -> None:
    """Store `rejection`, and delete the device's oldest ones of its sort if there are too many.

    A refused body is cut off at REJECTED_MAX_BYTES; events of a lenient batch, which its device forgets, stay whole.
    """
    body = rejection.body if rejection.status == 200 else rejection.body[: settings.REJECTED_MAX_BYTES]
    news = {
        "source": rejection.source,
        "status": rejection.status,
        "detail": rejection.detail,
        "errors": rejection.errors[:ERRORS_KEPT],
        "received_at": rejection.received_at,
        "batch_digest": rejection.batch_digest,
        "good_events": rejection.good_events,
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
        _forget_oldest(rejection)


def _forget_oldest(rejection: Rejection) -> None:
    """Refused batches, which their device may still have, and bad events of lenient ones do not push each other out."""
    rows = RejectedBatch.objects.filter(device=rejection.device)
    if rejection.status == 200:
        rows, limit = rows.filter(status=200), LENIENT_PER_DEVICE
    else:
        rows, limit = rows.exclude(status=200), settings.REJECTED_PER_DEVICE
    too_many = rows.order_by("-received_at", "-pk").values_list("pk", flat=True)[limit:]
    RejectedBatch.objects.filter(pk__in=list(too_many)).delete()


def send_again(rejected: RejectedBatch) -> int:
    """Store `rejected` as if its device sent it now, delete it, and return the number of its events.

    Raises any refusal of a post, such as MalformedBatch or InvalidEvents, InvalidDeviceKey if the device has no usable
    key, NotTheRest, and the database's error.
    """
    if rejected.batch_digest is not None:
        name = rejected.idempotency_key.rpartition(NAME_SUFFIX)[0]
        stored = stored_events(rejected.device_id, name or None, bytes(rejected.batch_digest))
        if stored != rejected.good_events:
            raise NotTheRest(stored)
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
    audit.record(Verb.REJECTED_BATCH_SENT_AGAIN, rejected, owner=rejected.device, after={"events": len(batch.events)})
    rejected.delete()
    if outcome.alerts:
        transaction.on_commit(lambda: async_to_sync(broadcast)(outcome.alerts))
    return len(batch.events)


def delete_expired(now: datetime) -> int:
    """Delete the expired rejected batches, and return their number."""
    return RejectedBatch.objects.filter(received_at__lt=oldest_kept(now)).delete()[0]


def oldest_kept(now: datetime) -> datetime:
    return now - timedelta(hours=settings.REJECTED_HOURS)
