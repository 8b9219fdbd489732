"""Alerts written straight into the database, each with its group, changes of groups, suppression rules, and
a restored database."""

from datetime import datetime, timedelta
from uuid import uuid4

from django.contrib.auth.models import User
from django.db import connection
from django.db.models import QuerySet

from alerts.fingerprint import fingerprint
from alerts.models import AlertGroup, SecurityAlert, Status, SuppressionRule
from alerts.order import next_revisions
from alerts.triage import Wish, triage
from tenants.models import Tenant


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


class Backup:
    """The alerts and their groups as they are now."""

    def __init__(self) -> None:
        self.rows = {model: list(model.objects.all()) for model in (AlertGroup, SecurityAlert)}

    def restore(self) -> None:
        """Nobody remembers what came later: neither the rows nor, on PostgreSQL, the sequences."""
        for model, rows in self.rows.items():
            model.objects.all().delete()
            model.objects.bulk_create(rows)
        if connection.vendor == "postgresql":  # SQLite counts on from the rows
            with connection.cursor() as cursor:
                cursor.execute("SELECT setval('alert_groups_revision_seq', max(revision)) FROM alert_groups")
                for table in ("alert_groups", "security_alerts"):
                    cursor.execute(f"SELECT setval('{table}_id_seq', max(id)) FROM {table}")


def suppression_rule(tenant: Tenant, now: datetime, **fields) -> SuppressionRule:
    """A rule that is in force for a day from `now` on."""
    maker = {} if "created_by" in fields else {"created_by_id": 0}
    given = {"reason": "Scanner of ours", "worst_severity": "high", "created_by_name": "erin"} | maker
    given |= {"created_at": now, "ends_at": now + timedelta(days=1)}
    return SuppressionRule.objects.create(tenant=tenant, **(given | fields))
