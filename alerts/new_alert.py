"""An alert on its way into the database, and the lock that makes id order the same as commit order."""

from dataclasses import dataclass
from datetime import datetime

from alerts.models import Status
from devices.models import Device
from tenants.models import Tenant

# An advisory lock, held from the first id taken until the commit: without it ids would not be in commit order, and a
# reader of "all after id N" could skip an alert that is not visible yet. SQLite has only one writer anyway.
ORDER_LOCK = 0x5EC_A1E27

# The columns of the alert itself; it shares the others with its batch.
COLUMNS = ("timestamp", "title", "severity", "source_ip", "destination_ip", "description", "status")


@dataclass(slots=True)
class NewAlert:
    """Like `SecurityAlert`, but created in a tenth of the time. `pk` is set once it is stored."""

    tenant: Tenant
    device: Device
    timestamp: datetime
    received_at: datetime
    title: str
    severity: str
    source_ip: str | None
    destination_ip: str | None
    description: str
    status: str = Status.OPEN.value
    pk: int = 0

    @property
    def tenant_id(self) -> int:
        return self.tenant.pk

    @property
    def device_id(self) -> int:
        return self.device.pk

    @property
    def row(self) -> dict[str, object]:
        """The values of `COLUMNS`."""
        return {column: getattr(self, column) for column in COLUMNS}
