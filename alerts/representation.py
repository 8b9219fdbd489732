"""An alert as clients see it: the `data` of a frame, and of a row on the live page."""

from alerts.models import SecurityAlert, Status
from alerts.new_alert import NewAlert

# The status of an alert, as clients have known it since before there were groups, by the status of its group.
STATUSES: dict[str, str] = {
    Status.NEW: "open",
    Status.ACKNOWLEDGED: "acknowledged",
    Status.IN_PROGRESS: "acknowledged",
    Status.CLOSED: "resolved",
}


def represent(alert: SecurityAlert | NewAlert) -> dict[str, object]:
    """`alert` as JSON-ready values; its tenant, device and group must be loaded."""
    return {
        "id": alert.pk,
        "tenant": {"slug": alert.tenant.slug, "name": alert.tenant.name},
        "device": {"id": alert.device_id, "name": alert.device.name},
        "timestamp": alert.timestamp.isoformat(),
        "received_at": alert.received_at.isoformat(),
        "title": alert.title,
        "severity": alert.severity,
        "source_ip": alert.source_ip,
        "destination_ip": alert.destination_ip,
        "description": alert.description,
        "status": STATUSES[alert.group_status],
    }
