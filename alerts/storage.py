"""Alerts go in here, and nowhere else."""

from dataclasses import dataclass

from django.db import connection
from django.db.models import OuterRef, Subquery

from alerts.models import SecurityAlert
from devices.models import Tenant

# Held from the first id taken to the commit: without it ids would not be in commit order, and a
# reader of "all after id N" could be past an alert that is not visible yet.
ORDER_LOCK = 0x5EC_A1E27


@dataclass(slots=True)
class StoredAlerts:
    """Alerts of one transaction, in id order, and the id before them: their tenant's (None: of all tenants)."""

    tenant_id: int | None
    after: int
    alerts: list[SecurityAlert]


def store_alerts(alerts: list[SecurityAlert]) -> list[StoredAlerts]:
    """Insert `alerts` in the running transaction and say what to broadcast once it is committed.

    Ids and commits are in the same order, over all processes: on PostgreSQL by a lock, on SQLite
    because there is one writer.
    """
    if not alerts:
        return []
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [ORDER_LOCK])
    newest = SecurityAlert.objects.order_by("-id").values("id")
    newest_of_tenant = newest.filter(tenant=OuterRef("pk"))[:1]
    tenants = Tenant.objects.filter(pk__in={alert.tenant_id for alert in alerts})
    after = dict(tenants.annotate(newest=Subquery(newest_of_tenant)).values_list("pk", "newest"))
    before_all = newest.values_list("id", flat=True).first()

    SecurityAlert.objects.bulk_create(alerts)

    by_tenant: dict[int, list[SecurityAlert]] = {}
    for alert in alerts:
        by_tenant.setdefault(alert.tenant_id, []).append(alert)
    stored = [StoredAlerts(tenant_id, after.get(tenant_id) or 0, own) for tenant_id, own in by_tenant.items()]
    return [StoredAlerts(None, before_all or 0, alerts), *stored]
