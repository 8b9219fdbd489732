"""A checked batch, and what happens to it."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from alerts.new_alert import NewAlert
from devices.models import DeviceKey
from ingest.decoder import Event
from ingest.models import KIND_COUNTS, Kind


@dataclass(slots=True)
class Batch:
    """A checked batch, ready to be stored."""

    key: DeviceKey
    digest: bytes
    byte_count: int
    source: str | None  # the address it came from
    received_at: datetime
    events: list[Event]
    kinds: Counter[str]  # how many events of each
    alerts: list[NewAlert]
    modules: set[str]  # that its events need
    idempotency_key: str | None = None

    @property
    def kind_counts(self) -> dict[str, int]:
        """How many events of each kind, by the column; without that of alerts."""
        return {column: self.kinds[kind] for kind, column in KIND_COUNTS.items() if kind is not Kind.SECURITY_ALERT}


class Inserted(NamedTuple):
    """What a transaction did with a batch."""

    enabled: set[str] | None  # the modules of its tenant, None if its key is not usable
    is_new: bool  # stored just now


@dataclass(slots=True)
class BadEvents:
    """The bad events of a lenient batch, as a body of their own, and what is wrong with them."""

    body: bytes
    count: int
    errors: list[dict[str, Any]]  # the first ones, by index in the batch
