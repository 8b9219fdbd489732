"""The only writer: batches go into the database here, several in one transaction."""

from dataclasses import dataclass, field

from django.db import OperationalError, connection

from alerts.storage import NewAlert
from ingest import postgresql, sqlite
from ingest.batch import Batch
from ingest.refusals import Refusal, refusal_of_each


@dataclass(slots=True)
class Outcome:
    """What became of a group of batches: who was refused after all, and the alerts that are new, in id order."""

    refused: dict[int, Refusal | OperationalError] = field(default_factory=dict)
    alerts: list[NewAlert] = field(default_factory=list)


def store_batches(batches: list[Batch]) -> Outcome:
    """Store `batches` in one transaction and return when it is on disk.

    A batch that its device has sent before is left out, and is no refusal. `refused` maps the index of a
    batch to the reason, where its key was revoked or a module switched off since it was checked, and to
    OperationalError where it was left out for a reason that is gone: its device must come again.
    Raises the database's error where it does not answer.
    """
    insert = postgresql.insert if connection.vendor == "postgresql" else sqlite.insert
    distinct = {batch.identity: batch for batch in reversed(batches)}  # a group may hold the same batch twice
    not_stored, alerts = insert(list(distinct.values()))
    return Outcome(_refused(batches, {batch.identity for batch in not_stored}), alerts)


def _refused(batches: list[Batch], identities: set[tuple[int, bytes]]) -> dict[int, Refusal | OperationalError]:
    """The others of the group are committed: so a batch that is allowed again a moment later must fail alone."""
    if not identities:
        return {}
    being_changed = OperationalError("The device's key or tenant is being changed.")
    return {
        index: refusal or being_changed
        for index, refusal in enumerate(refusal_of_each(batches))
        if batches[index].identity in identities
    }
