"""The only writer: batches go into the database here, several in one transaction."""

from dataclasses import dataclass

from django.db import InterfaceError, OperationalError, connection

from alerts.storage import NewAlert
from devices.authentication import InvalidDeviceKey, known_keys
from ingest import postgresql, sqlite
from ingest.batch import Batch
from ingest.errors import IdempotencyKeyReused, ModuleDisabled
from ingest.models import IngestBatch


@dataclass(slots=True)
class Outcome:
    """What became of a group of batches: who was refused after all, and the alerts that are new, in id order."""

    refused: dict[int, Exception]
    alerts: list[NewAlert]


def store_batches(batches: list[Batch]) -> Outcome:
    """Store `batches` in one transaction and return when it is on disk.

    A batch that its device has sent before, or that is twice in the group, is left out, and is no refusal.
    `refused` maps the index of a batch to the reason, where its key was revoked or a module switched off since it
    was checked, or its Idempotency-Key was used for another. Raises the database's error where it does not answer.
    """
    insert = postgresql.insert if connection.vendor == "postgresql" else sqlite.insert
    enabled, alerts = insert(batches)
    reasons = map(_refusal, batches, enabled)
    refused: dict[int, Exception] = {index: reason for index, reason in enumerate(reasons) if reason}
    if refused:
        known_keys.clear()
    return Outcome(_reused(batches) | refused, alerts)


def _reused(batches: list[Batch]) -> dict[int, Exception]:
    """Those that were left out because their device has used their Idempotency-Key for another body.

    A question of its own, for a transaction does not see what another has committed meanwhile. The others of the
    group are stored: so where the database does not answer, those that have such a key fail alone.
    """
    named = {index: batch for index, batch in enumerate(batches) if batch.idempotency_key}
    if not named:
        return {}
    keys = {batch.idempotency_key for batch in named.values()}
    devices = {batch.key.device_id for batch in named.values()}
    rows = IngestBatch.objects.filter(device__in=devices, idempotency_key__in=keys)
    try:
        digests = {
            tuple(who): bytes(digest) for *who, digest in rows.values_list("device", "idempotency_key", "digest")
        }
    except (OperationalError, InterfaceError) as error:
        return dict.fromkeys(named, error)
    digest_of = {index: digests.get((batch.key.device_id, batch.idempotency_key)) for index, batch in named.items()}
    return {i: IdempotencyKeyReused() for i, digest in digest_of.items() if digest not in (None, batches[i].digest)}


def _refusal(batch: Batch, enabled: set[str] | None) -> InvalidDeviceKey | ModuleDisabled | None:
    """Why a batch was left out by a transaction that found these modules `enabled`, None where it is stored."""
    if enabled is None:
        return InvalidDeviceKey()
    off = batch.modules - enabled
    return ModuleDisabled(off) if off else None
