"""A quiet tenant's alerts are found without reading a loud one's: looked at in the plans of PostgreSQL."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from alerts.api.filters import GroupFilter, condition_of, search_of
from alerts.consumers import alerts_after, newest_id
from alerts.group_consumer import changes_after, missed_after, newest_revision
from alerts.models import SecurityAlert
from devices.models import Device
from ingestcloud.overview.cards import new_groups
from ingestcloud.overview.tables import newest_alerts
from tenants.isolation import acting_as
from tests.support.alert_rows import alert_row
from tests.support.plans import rows_read_of
from tests.support.servers import servers_only

pytestmark = pytest.mark.django_db

LOUD_ALERTS = 200_000
# Each alert with a group of its own.
INSERT = """
WITH begun AS (
  INSERT INTO alert_groups (tenant_id, fingerprint, title, severity, status, count, first_seen_at, last_seen_at,
                            last_alert_id, revision)
  SELECT %s, sha256(n::text::bytea), 'Port scan', %s, 'new', 1, now(), now(), 1, nextval('alert_groups_revision_seq')
    FROM generate_series(1, %s) AS n
  RETURNING id, tenant_id, title, severity
)
INSERT INTO security_alerts (tenant_id, device_id, batch_id, timestamp, received_at, title, severity, source_ip,
                             destination_ip, description, group_id)
SELECT tenant_id, %s, 1, now(), now(), title, severity, NULL, NULL, '', id FROM begun
"""


@pytest.fixture
def devices(make_key) -> list[Device]:
    """Of three tenants."""
    return [make_key()[0].device for _ in range(3)]


@pytest.fixture
def quiet_user(devices) -> User:
    """A member of those tenants."""
    user = User.objects.create_user("quiet")
    user.tenants.set(device.tenant for device in devices)
    return user


def store_alert(device: Device) -> int:
    now = timezone.now()
    fields = {"tenant": device.tenant, "device": device, "timestamp": now, "received_at": now, "severity": "critical"}
    return alert_row(title=f"Port scan {SecurityAlert.objects.count()}", **fields).pk


def found_by(given: dict[str, Any], user: User) -> GroupFilter:
    return GroupFilter(user, search_of(given), condition_of(given, user), [])


def test_newest_and_next_alerts_are_those_of_all_tenants_of_a_user(quiet_user, devices, make_key):
    own = [store_alert(device) for _ in range(3) for device in devices]
    others = store_alert(make_key()[0].device)
    superuser, nobody = User.objects.create_superuser("superuser"), User.objects.create_user("nobody")
    newest = SecurityAlert.objects.newest_of
    assert [alert.pk for alert in newest(quiet_user, 4)] == own[:-5:-1]
    assert [alert.pk for alert in newest(superuser, 2)] == [others, own[-1]]
    assert [alert["id"] for alert in alerts_after(quiet_user, own[2])] == own[3:]
    assert [alert["id"] for alert in alerts_after(superuser, own[-1])] == [others]
    assert [newest_id(user) for user in (quiet_user, superuser, nobody)] == [own[-1], others, 0]
    quiet_user.is_active = False
    assert not newest(quiet_user, 4)


@servers_only
@pytest.mark.parametrize("own_alerts", [2, 300])
def test_a_quiet_tenants_alerts_are_found_without_those_of_a_loud_one(
    quiet_user, devices, make_key, own_alerts, monkeypatch
):
    # To find thousands of them, a scan of so small a table would be cheaper.
    monkeypatch.setattr("ingestcloud.overview.cards.MAX_COUNTED_GROUPS", 500)
    monkeypatch.setattr("alerts.group_consumer.MAX_MISSED_GROUPS", 500)
    loud = make_key()[0].device
    with connection.cursor() as cursor:
        cursor.execute(INSERT, [devices[0].tenant_id, "critical", own_alerts, devices[0].pk])
        cursor.execute(INSERT, [loud.tenant_id, "high", LOUD_ALERTS, loud.pk])
        cursor.execute("ANALYZE")
    last = newest_id(quiet_user)
    request: Any = SimpleNamespace(user=quiet_user)
    queries: dict[str, Callable[[], object]] = {
        "newest alerts of the admin": lambda: newest_alerts(request),
        "newest id of a socket": lambda: newest_id(quiet_user),
        "a ping": lambda: alerts_after(quiet_user, last),
        "all alerts of a socket": lambda: alerts_after(quiet_user, 0),
    }
    read: dict[str, int] = {}
    for name, query in queries.items():
        with acting_as(quiet_user), rows_read_of("security_alerts") as counts:
            query()
        read[name] = sum(counts)
    of_groups: dict[str, Callable[[], object]] = {
        "open alerts of the admin": lambda: new_groups(quiet_user, timezone.now()),
        "the console's list": lambda: found_by({}, quiet_user).find(101),
        "its urgent groups": lambda: found_by({"severity": ["critical"], "status": ["new"]}, quiet_user).find(201),
        "its closed groups": lambda: found_by({"status": ["closed"]}, quiet_user).find(101),
        "newest revision": lambda: newest_revision(quiet_user),
        "a ping of the console": lambda: changes_after(quiet_user, revision),
        "what the console missed": lambda: missed_after(quiet_user, 0, None),
    }
    revision = newest_revision(quiet_user)
    for name, query in of_groups.items():
        with acting_as(quiet_user), rows_read_of("alert_groups") as counts:
            query()
        read[name] = sum(counts)
    assert {name: count for name, count in read.items() if count > 10 * own_alerts} == {}
