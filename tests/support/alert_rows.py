"""Alerts written straight into the database, each with its group, and changes of groups."""

from uuid import uuid4

from django.contrib.auth.models import User
from django.db.models import QuerySet

from alerts.fingerprint import fingerprint
from alerts.models import AlertGroup, SecurityAlert, Status
from alerts.order import next_revisions
from alerts.triage import Wish, triage


def alert_row(status: Status = Status.NEW, **fields) -> SecurityAlert:
    """A stored alert whose group, of its own, has this status."""
    device, address = fields["device"], fields.get("source_ip")
    group = AlertGroup.objects.create(
        tenant=fields["tenant"],
        device=None if address else device,
        fingerprint=fingerprint(fields["title"], address, None, device.pk),
        title=fields["title"],
        source_ip=address,
        severity=fields["severity"],
        status=status,
        count=1,
        first_seen_at=fields["received_at"],
        last_seen_at=fields["received_at"],
        last_alert_id=0,
        revision=next_revisions(1)[0],
    )
    alert = SecurityAlert.objects.create(group=group, batch_id=fields.pop("batch_id", 1), **fields)
    AlertGroup.objects.filter(pk=group.pk).update(last_alert_id=alert.pk)
    return alert


def set_status(groups: QuerySet[AlertGroup], status: Status) -> None:
    """Change `groups` as a superuser does in the console."""
    user = User.objects.filter(username="triager").first() or User.objects.create_superuser("triager")
    disposition = "benign" if status == Status.CLOSED else None
    triage(user, uuid4(), {group.pk: group.version for group in groups}, Wish(status, disposition))
