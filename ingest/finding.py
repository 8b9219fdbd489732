"""Finds the events of a device or a batch, however many other events there are and however long ago they came.

No index leads from a device to its events, because it would cost more than all of our own work (docs/architecture.md
has the figures). One leads from a device to its batches, and another from a batch to its events.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import Q, QuerySet
from django.utils import timezone

from common.id_order import RECEIVED_SLACK, first_id, next_id
from common.keyset import Order
from devices.models import Device
from ingest.models import IngestBatch, IngestEvent

THROUGH_BATCHES = Order("batch_id", "pk")
STEP_BATCHES = 100  # whose events one query reads
MAX_BATCHES = 150  # that a page reads, each of which is a search of the index
MAX_EVENTS = 8_000  # that a page reads
WIDER = timedelta(days=1)  # at either end of a range of times that only leaves out partitions
EXPIRED_FOR = timedelta(days=2)  # until `maintain` has surely deleted an event


class Found(NamedTuple):
    """Events, and if not all batches were looked at: the place and the time of receipt of the last one that was."""

    events: list[IngestEvent]
    place: str | None = None
    received_at: datetime | None = None


def batches_of(device: Device) -> QuerySet[IngestBatch]:
    """The batches of `device` that may have events: batches are kept longer than events."""
    batches: QuerySet[IngestBatch] = IngestBatch.objects.filter(tenant=device.tenant_id, device=device)
    if days := device.tenant.retention_days:
        batches = received_between(batches, timezone.now() - timedelta(days=days) - EXPIRED_FOR, None)
    return batches


def received_between(
    batches: QuerySet[IngestBatch], start: datetime | None, end: datetime | None
) -> QuerySet[IngestBatch]:
    """Those of `batches`, which an index finds in the order of ids, that were received in the time."""
    rows, past = batches.order_by(), next_id(batches)
    if start:
        first = first_id(rows, "received_at", start - RECEIVED_SLACK, past)
        batches = batches.filter(pk__gte=first, received_at__gte=start)
    if end:
        last = first_id(rows, "received_at", end + RECEIVED_SLACK, past)
        batches = batches.filter(pk__lt=last, received_at__lte=end)
    return batches


def through_batches(
    events: QuerySet[IngestEvent],
    batches: QuerySet[IngestBatch],
    limit: int,
    place: tuple[Any, ...] | None = None,
    *,
    newest_first: bool = True,
) -> Found:
    """The first `limit` of `events` that are in `batches`, in the order THROUGH_BATCHES, from `place`.

    The events that this looks at are those of few batches, unless `events` leaves most of them out: then it looks at
    more and more at a time, up to MAX_EVENTS or MAX_BATCHES.
    """
    if place:
        events = events.filter(THROUGH_BATCHES.beyond(place, newest_first=newest_first))
        batches = batches.filter(Q(**{"pk__lte" if newest_first else "pk__gte": place[0]}))
    batches = batches.order_by("-pk" if newest_first else "pk")
    found: list[IngestEvent] = []
    looked_at, read, factor = 0, 0, 1
    while step := _events_enough(batches, factor * (limit - len(found))):
        rows = THROUGH_BATCHES.sort(in_batches(events, step), newest_first=newest_first)
        found += rows[: limit - len(found)]
        if len(found) == limit:
            return Found(found)
        last, received_at, _ = step[-1]
        batches = batches.filter(Q(**{"pk__lt" if newest_first else "pk__gt": last}))
        looked_at, read = looked_at + len(step), read + sum(count for _, _, count in step)
        if looked_at >= MAX_BATCHES or read >= MAX_EVENTS:
            # Ids begin with 1, so 0 is before all events of the batch.
            return Found(found, f"{last},0" if newest_first else f"{last + 1},0", received_at)
        factor *= 4
    return Found(found)


def _events_enough(batches: QuerySet[IngestBatch], wanted: int) -> list[tuple[int, datetime, int]]:
    """The first batches that have `wanted` events together."""
    step = []
    for batch in batches.values_list("pk", "received_at", "event_count")[:STEP_BATCHES]:
        step.append(batch)
        wanted -= batch[2]
        if wanted <= 0:
            break
    return step


def in_batches(events: QuerySet[IngestEvent], batches: list[tuple[int, datetime, int]]) -> QuerySet[IngestEvent]:
    """Those of `events` that are in `batches`.

    A batch and its events are stored by one statement with the very same `received_at`, whenever that was and whatever
    the clock said. So the partitions that have the events are known, and no others are searched. For exact times or a
    narrow range the planner would read the primary key from one end to the other, because it contains the time; a wide
    one only leaves out partitions.
    """
    ids, times, _ = zip(*batches, strict=True)
    return events.filter(batch__in=ids, received_at__range=(min(times) - WIDER, max(times) + WIDER))
