"""An alert on its way into the database."""

from dataclasses import dataclass
from datetime import datetime

from alerts.fingerprint import fingerprint
from alerts.models import Status
from devices.models import Device
from tenants.models import Tenant

# The columns of the alert itself; it shares the others with its batch.
COLUMNS = ("timestamp", "title", "severity", "source_ip", "destination_ip", "description")


@dataclass(slots=True)
class NewAlert:
    """Like `SecurityAlert`, but created in a tenth of the time.

    `pk`, `group_status` and `is_suppressed` are set once it is stored.
    """

    tenant: Tenant
    device: Device
    timestamp: datetime
    received_at: datetime
    title: str
    severity: str
    source_ip: str | None
    destination_ip: str | None
    description: str
    pk: int = 0
    group_status: str = Status.NEW.value
    is_suppressed: bool = False

    @property
    def tenant_id(self) -> int:
        return self.tenant.pk

    @property
    def device_id(self) -> int:
        return self.device.pk

    @property
    def fingerprint(self) -> bytes:
        return fingerprint(self.title, self.source_ip, self.destination_ip, self.device_id)

    @property
    def row(self) -> dict[str, object]:
        """The values of `COLUMNS`."""
        return {column: getattr(self, column) for column in COLUMNS}
