"""What one transaction does with a group of batches: stores them, and says which were refused after all."""

import time
from dataclasses import dataclass

from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.db.models import Q

from alerts.new_alert import NewAlert
from common import sequences
from devices.authentication import InvalidDeviceKey, known_keys
from ingest.batch import Batch
from ingest.errors import IdempotencyKeyReused, ModuleDisabled, StoredInPart
from ingest.models import IngestBatch
from ingest.storing import postgresql, sqlite

SEQUENCES_SECONDS = 10.0  # between two looks, while batches come in
# Whose sequences are watched: only those that this path inserts into. Looking at all tables takes hardly longer, but
# batches would wait whenever any table is locked, such as one of the admin that is being migrated.
TABLES = ("ingest_batches", "ingest_events", "security_alerts", "alert_groups", "rejected_batches")


@dataclass(slots=True)
class Outcome:
    """The result of storing a group of batches: which were refused after all, and the new alerts in id order."""

    refused: dict[int, Exception]
    alerts: list[NewAlert]


def store_batches(batches: list[Batch]) -> Outcome:
    """Store `batches` in one transaction, which is on disk on return, unless the caller had one open (a page has).

    A batch that its device has sent before, or that is in the group twice, is left out; that is no refusal. `refused`
    maps the index of a batch to the reason: its key was revoked or a module switched off since it was checked, its
    Idempotency-Key was used for another body, other events of it were stored the first time, or it was left out and is
    not found. Raises the database's error, such as IntegrityError if an id is taken.
    """
    insert = postgresql.insert if connection.vendor == "postgresql" else sqlite.insert
    inserted, alerts = insert(batches)
    refused: dict[int, Exception] = {}
    left_out: dict[int, Batch] = {}
    for index, (batch, (enabled, is_new)) in enumerate(zip(batches, inserted, strict=True)):
        if reason := _refusal(batch, enabled):
            refused[index] = reason
        elif batch.events and not is_new:
            left_out[index] = batch
    if refused:
        known_keys.clear()
    return Outcome(_missing(left_out) | refused if left_out else refused, alerts)


class SequenceWatch:
    """Checks whether a sequence is behind its table: before the first batch, before the first one after a failure,
    and every few seconds while batches come in.

    An event id that is assigned twice is no error: the primary key of a partitioned table includes the time.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def look(self) -> None:
        """Raises the database's error."""
        if time.monotonic() >= self._next:
            repair_sequences()
            self._next = time.monotonic() + SEQUENCES_SECONDS

    def look_soon(self) -> None:
        """Check before the next batch. Called after a failure, when another server may answer."""
        self._next = 0.0


sequence_watch = SequenceWatch()


def repair_sequences() -> None:
    """Set forward the sequences of TABLES that are behind: otherwise devices would have to retry once for each id.

    SQLite never gives an id that is taken. Raises the database's error.
    """
    sequences.set_forward(TABLES)


def _missing(left_out: dict[int, Batch]) -> dict[int, Exception]:
    """Why left-out batches can't be acknowledged, by index. A repeat is found by its Idempotency-Key, or its digest.

    This is a query of its own, because a transaction does not see what another has committed meanwhile. The rest of
    the group is stored: so if the database does not answer, only the left-out batches fail.
    """
    batches = left_out.values()
    devices = {batch.key.device_id for batch in batches}
    is_named = Q(idempotency_key__in={batch.idempotency_key for batch in batches if batch.idempotency_key})
    is_unnamed = Q(idempotency_key=None, digest__in={batch.digest for batch in batches if not batch.idempotency_key})
    rows = IngestBatch.objects.filter(is_named | is_unnamed, device__in=devices)
    try:
        found = {
            (device, name or bytes(digest)): (bytes(digest), count)
            for device, name, digest, count in rows.values_list("device", "idempotency_key", "digest", "event_count")
        }
    except (OperationalError, InterfaceError) as error:
        return dict.fromkeys(left_out, error)
    missing: dict[int, Exception] = {}
    for index, batch in left_out.items():
        digest, count = found.get((batch.key.device_id, batch.idempotency_key or batch.digest), (None, 0))
        if digest is None:
            missing[index] = DatabaseError("A batch was neither stored nor found. Its device is told to send it again.")
        elif digest != batch.digest:
            missing[index] = IdempotencyKeyReused()
        elif count != len(batch.events):
            missing[index] = StoredInPart(count)
    return missing


def _refusal(batch: Batch, enabled: set[str] | None) -> InvalidDeviceKey | ModuleDisabled | None:
    """Why a batch was left out by a transaction that found these modules `enabled`, None if it may be stored."""
    if enabled is None:
        return InvalidDeviceKey()
    off = batch.modules - enabled
    return ModuleDisabled(off) if off else None
