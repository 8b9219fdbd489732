"""What the tests of refused and of lenient batches share."""

import json

from django.urls import reverse

from ingest.models import RejectedBatch
from tests.support.events import EXAMPLES

BACKUP = json.loads(EXAMPLES["backup_event"])
BAD = {"kind": "log", "timestamp": "2026-06-06T10:00:00Z", "data": {"level": "info"}}
LENIENT = {"Prefer": "handling=lenient"}


def body_of(*events: object) -> bytes:
    return json.dumps(events).encode()


def named(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


def page_of(rejected: RejectedBatch, name: str = "change") -> str:
    return reverse(f"admin:ingest_rejectedbatch_{name}", args=[rejected.pk])
