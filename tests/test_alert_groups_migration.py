"""The migration that puts the alerts of 0.1.0 into groups."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from alerts.models import AlertGroup, SecurityAlert, Status
from alerts.order import next_revisions

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 6, 6, 12, tzinfo=UTC)
# Title, severity, status and source address, in id order.
ALERTS = [
    ("scan", "low", "resolved", "192.0.2.7"),
    ("scan", "high", "acknowledged", "192.0.2.7"),
    ("scan", "medium", "open", "192.0.2.7"),
    ("scan", "low", "resolved", "192.0.2.7"),
    ("disk", "info", "acknowledged", None),
    ("disk", "critical", "acknowledged", None),
    ("lock", "low", "open", None),
    ("lock", "low", "resolved", None),
]


def migrate(name: str | None = None):
    """Migrate `alerts` to `name`, or to the newest, and return the models as they are there."""
    executor = MigrationExecutor(connection)
    [(_, newest)] = executor.loader.graph.leaf_nodes("alerts")
    name = name or newest
    executor.migrate([("alerts", name)])
    return executor.loader.project_state([("alerts", name)]).apps


@pytest.fixture
def before():
    """The models as they were. Afterwards the database is as the other tests expect it."""
    SecurityAlert.objects.all().delete()
    yield migrate("0001_initial")
    migrate()


def test_stored_alerts_get_groups_with_their_statuses(before, device_key):
    device = device_key.device
    model = before.get_model("alerts", "SecurityAlert")
    for number, (title, severity, status, source_ip) in enumerate(ALERTS):
        model.objects.create(
            tenant_id=device.tenant_id, device_id=device.pk, batch_id=1, timestamp=NOW,
            received_at=NOW + timedelta(minutes=number), title=title, severity=severity, status=status,
            source_ip=source_ip,
        )  # fmt: skip
    ids = list(model.objects.order_by("id").values_list("id", flat=True))
    migrate()
    groups = AlertGroup.objects.order_by("id")
    assert [(g.title, g.status, g.severity, g.count, g.device_id) for g in groups] == [
        ("scan", Status.CLOSED, "low", 2, None),
        ("scan", Status.NEW, "high", 2, None),
        ("disk", Status.ACKNOWLEDGED, "critical", 2, device.pk),
        ("lock", Status.NEW, "low", 1, device.pk),
        ("lock", Status.CLOSED, "low", 1, device.pk),
    ]
    resolved, scan, disk, lock, unlocked = groups
    assert [g.previous for g in groups] == [None, resolved, None, None, lock]
    assert [g.last_alert_id for g in groups] == [ids[3], ids[2], ids[5], ids[6], ids[7]]
    assert (resolved.first_seen_at, resolved.last_seen_at) == (NOW, NOW + timedelta(minutes=3))
    by_alert = dict(SecurityAlert.objects.values_list("id", "group"))
    assert [by_alert[pk] for pk in ids] == [
        group.pk for group in (resolved, scan, scan, resolved, disk, disk, lock, unlocked)
    ]
    assert list(groups.order_by("revision")) == [scan, resolved, disk, lock, unlocked]
    assert next_revisions(1) == [6]

    old = migrate("0001_initial").get_model("alerts", "SecurityAlert")
    assert list(old.objects.order_by("id").values_list("status", flat=True)) == [
        "resolved", "open", "open", "resolved", "acknowledged", "acknowledged", "open", "resolved"
    ]  # fmt: skip
