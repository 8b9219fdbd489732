"""Alerts and groups as clients see them: in the API and in the frames of sockets."""

from datetime import datetime

from alerts.models import AlertGroup, SecurityAlert, Status
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


def represent_evidence(alert: SecurityAlert) -> dict[str, object]:
    """`alert` as it was sent, as JSON-ready values, for lists beside its group; its device must be loaded."""
    return {
        "id": alert.pk,
        "timestamp": alert.timestamp.isoformat(),
        "received_at": alert.received_at.isoformat(),
        "title": alert.title,
        "severity": alert.severity,
        "source_ip": alert.source_ip,
        "destination_ip": alert.destination_ip,
        "description": alert.description,
        "device": {"id": alert.device_id, "name": alert.device.name},
        "suppressed_by": alert.suppressed_by_id,
    }


def represent_group(group: AlertGroup) -> dict[str, object]:
    """`group` as JSON-ready values. Read it with `AlertGroup.objects.represented()`."""
    return {
        "id": group.pk,
        "tenant": {"slug": group.tenant.slug, "name": group.tenant.name},
        "title": group.title,
        "severity": group.severity,
        "status": group.status,
        "disposition": group.disposition or None,
        "assignee": {"id": group.assignee_id, "name": group.assignee_name} if group.assignee_id else None,
        "source_ip": group.source_ip,
        "destination_ip": group.destination_ip,
        "device": {"id": group.device.pk, "name": group.device.name} if group.device else None,
        "count": group.count,
        "suppressed_count": group.suppressed_count,
        "since_acknowledged": _since_acknowledged(group),
        "first_seen_at": group.first_seen_at.isoformat(),
        "last_seen_at": group.last_seen_at.isoformat(),
        "last_alert_id": group.last_alert_id,
        "version": group.version,
        "revision": group.revision,
        "status_changed_at": _iso(group.status_changed_at),
        "status_changed_by": group.status_changed_by or None,
        "previous": _represent_previous(group.previous),
    }


def _since_acknowledged(group: AlertGroup) -> int | None:
    """How many alerts came since. Alerts may have made it new again, and leave `acknowledged_count` as it was."""
    if group.status in (Status.NEW, Status.CLOSED) or group.acknowledged_count is None:
        return None
    return group.count - group.acknowledged_count


def _represent_previous(group: AlertGroup | None) -> dict[str, object] | None:
    if group is None:
        return None
    return {
        "id": group.pk,
        "disposition": group.disposition or None,
        "status_changed_at": _iso(group.status_changed_at),
        "status_changed_by": group.status_changed_by or None,
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
