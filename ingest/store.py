"""The only writer: batches go into the database here, several in one transaction."""

import contextlib
from dataclasses import dataclass, field

from django.db import connection, transaction

from alerts.storage import StoredAlerts, store_alerts
from ingest import postgresql, sqlite
from ingest.batch import Batch
from ingest.refusals import Refusal, refusal_of_each


@dataclass(slots=True)
class Outcome:
    """What became of a group of batches: who was refused after all, and what to broadcast."""

    refused: dict[int, Refusal] = field(default_factory=dict)
    alerts: StoredAlerts | None = None


def store_batches(batches: list[Batch]) -> Outcome:
    """Store `batches` in one transaction and return when it is on disk.

    A batch that its device has sent before is left out, and is no refusal. `refused` maps the index of a
    batch to the reason, where its key was revoked or a module switched off since it was checked.
    """
    outcome = Outcome()
    on_postgresql = connection.vendor == "postgresql"
    insert = postgresql.insert if on_postgresql else sqlite.insert
    # A group may hold the same batch twice, and an empty one leaves no trace.
    distinct = list({batch.identity: batch for batch in reversed(batches) if batch.events}.values())
    one_statement = on_postgresql and not any(batch.alerts for batch in distinct)
    with contextlib.nullcontext() if one_statement else transaction.atomic():
        fresh = insert(distinct) if distinct else []
        alerts = []
        for batch_id, batch in fresh:
            for alert in batch.alerts:
                alert.batch_id = batch_id
                alerts.append(alert)
        if alerts:
            outcome.alerts = store_alerts(alerts)
        if len(fresh) < len(batches):
            outcome.refused = {n: refusal for n, refusal in enumerate(refusal_of_each(batches)) if refusal}
    return outcome
