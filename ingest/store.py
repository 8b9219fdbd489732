"""The only writer: batches go into the database here, several in one transaction."""

from dataclasses import dataclass, field

from django.db import connection

from alerts.storage import NewAlert
from devices.authentication import InvalidDeviceKey, known_keys
from ingest import postgresql, sqlite
from ingest.batch import Batch
from ingest.errors import ModuleDisabled

Refusal = InvalidDeviceKey | ModuleDisabled


@dataclass(slots=True)
class Outcome:
    """What became of a group of batches: who was refused after all, and the alerts that are new, in id order."""

    refused: dict[int, Refusal] = field(default_factory=dict)
    alerts: list[NewAlert] = field(default_factory=list)


def store_batches(batches: list[Batch]) -> Outcome:
    """Store `batches` in one transaction and return when it is on disk.

    A batch that its device has sent before, or that is twice in the group, is left out, and is no refusal.
    `refused` maps the index of a batch to the reason, where its key was revoked or a module switched off since it
    was checked. Raises the database's error where it does not answer.
    """
    insert = postgresql.insert if connection.vendor == "postgresql" else sqlite.insert
    enabled, alerts = insert(batches)
    reasons = map(_refusal, batches, enabled)
    refused = {index: reason for index, reason in enumerate(reasons) if reason}
    if refused:
        known_keys.clear()
    return Outcome(refused, alerts)


def _refusal(batch: Batch, enabled: set[str] | None) -> Refusal | None:
    """Why a batch was left out by a transaction that found these modules `enabled`, None where it is stored."""
    if enabled is None:
        return InvalidDeviceKey()
    off = batch.modules - enabled
    return ModuleDisabled(off) if off else None
