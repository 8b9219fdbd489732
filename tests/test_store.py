"""What is checked again when a batch is stored, because things may have changed since its first check."""

import json
from datetime import timedelta

import pytest
from django.db import DatabaseError, IntegrityError, OperationalError, connection
from django.utils import timezone

from alerts.models import SecurityAlert
from devices.authentication import InvalidDeviceKey
from devices.models import DeviceKey
from ingest.checking import check_batch
from ingest.errors import IdempotencyKeyReused, ModuleDisabled
from ingest.models import IngestBatch, IngestEvent
from ingest.storing.store import store_batches
from tenants.models import Tenant
from tests.support.assertions import assert_problem
from tests.support.events import EXAMPLES, alert, log
from tests.support.sequences import set_back
from tests.support.servers import servers_only

pytestmark = pytest.mark.django_db(transaction=True)

BACKUP = json.loads(EXAMPLES["backup_event"])


def batch_of(key: DeviceKey, *events: dict, name: str | None = None):
    loaded = DeviceKey.objects.select_related("device__tenant").get(pk=key.pk)
    batch = check_batch(json.dumps(events).encode(), loaded, "10.0.0.7", timezone.now())
    batch.idempotency_key = name
    return batch


def revoke(key: DeviceKey) -> None:
    DeviceKey.objects.filter(pk=key.pk).update(revoked_at=timezone.now())


def expire(key: DeviceKey) -> None:
    DeviceKey.objects.filter(pk=key.pk).update(expires_at=timezone.now() - timedelta(seconds=1))


def delete(key: DeviceKey) -> None:
    DeviceKey.objects.filter(pk=key.pk).delete()


def switch_backup_off(key: DeviceKey) -> None:
    Tenant.objects.filter(pk=key.device.tenant_id).update(backup_enabled=False)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (revoke, InvalidDeviceKey),
        (expire, InvalidDeviceKey),
        (delete, InvalidDeviceKey),
        (switch_backup_off, ModuleDisabled),
    ],
)
def test_batches_are_refused_only_if_their_own_key_or_module_is_no_longer_good(make_key, make_tenant, change, refusal):
    bad, good = (make_key(make_tenant(backup_enabled=True))[0] for _ in range(2))
    batches = [batch_of(key, BACKUP, alert()) for key in (good, bad, good, bad)]
    change(bad)
    outcome = store_batches(batches)
    assert {index: type(error) for index, error in outcome.refused.items()} == {1: refusal, 3: refusal}
    assert set(IngestEvent.objects.values_list("device_id", flat=True)) == {good.device_id}
    assert IngestEvent.objects.count() == 4
    assert [alert.pk for alert in outcome.alerts] == list(
        SecurityAlert.objects.order_by("id").values_list("id", flat=True)
    )


def test_an_empty_batch_is_also_refused_if_its_key_is_no_longer_good(device_key):
    batch = batch_of(device_key)
    revoke(device_key)
    assert set(store_batches([batch]).refused) == {0}


def test_the_same_batch_with_two_keys_of_a_device_is_stored_once_if_one_is_good(device_key):
    other = DeviceKey.objects.issue(device_key.device)[0]
    event = alert()
    batches = [batch_of(key, event) for key in (device_key, other, device_key, other)]
    revoke(device_key)
    outcome = store_batches(batches)
    assert {index: type(error) for index, error in outcome.refused.items()} == {
        0: InvalidDeviceKey,
        2: InvalidDeviceKey,
    }
    assert [alert.pk for alert in outcome.alerts] == [SecurityAlert.objects.get().pk]
    assert IngestBatch.objects.count() == IngestEvent.objects.count() == 1


def test_alerts_get_their_ids_in_the_order_of_their_batch_and_keep_their_contents(make_key):
    keys = [make_key()[0] for _ in range(3)]
    batches = [batch_of(key, log(), *(alert(f"{n}", source_ip="10.0.0.9") for n in range(20))) for key in keys]
    alerts = store_batches([*batches, batches[0]]).alerts
    assert [alert.pk for alert in alerts] == list(range(alerts[0].pk, alerts[0].pk + 60))
    rows = SecurityAlert.objects.in_bulk([alert.pk for alert in alerts])
    for alert_ in alerts:
        row = rows[alert_.pk]
        assert (row.title, row.device_id, row.tenant_id) == (alert_.title, alert_.device_id, alert_.tenant_id)
        assert IngestBatch.objects.get(pk=row.batch_id).device_id == alert_.device_id
        assert (row.source_ip, row.severity, row.group_status) == ("10.0.0.9", "high", "new")
        assert (row.timestamp, row.received_at) == (alert_.timestamp, alert_.received_at)
    assert all(
        [alert.title for alert in alerts if alert.device_id == key.device_id] == [str(n) for n in range(20)]
        for key in keys
    )


def test_a_repeat_has_no_new_alerts(device_key):
    batch = batch_of(device_key, alert())
    assert len(store_batches([batch]).alerts) == 1
    assert store_batches([batch]).alerts == []


def test_an_idempotency_key_tells_a_repeat_from_a_second_batch_of_the_same_bytes(device_key):
    same, other = alert("same"), alert("other")
    group = [
        batch_of(device_key, same, name="a"),
        batch_of(device_key, same, name="b"),
        batch_of(device_key, same),
        batch_of(device_key, same),
        batch_of(device_key, same, name="a"),
        batch_of(device_key, other, name="b"),
    ]
    outcome = store_batches(group)
    assert {index: type(error) for index, error in outcome.refused.items()} == {5: IdempotencyKeyReused}
    assert [alert.title for alert in outcome.alerts] == ["same"] * 3
    assert set(IngestBatch.objects.values_list("idempotency_key", flat=True)) == {"a", "b", None}
    again = store_batches(group)
    assert set(again.refused) == {5}
    assert again.alerts == []
    assert IngestBatch.objects.count() == IngestEvent.objects.count() == SecurityAlert.objects.count() == 3


@servers_only
@pytest.mark.parametrize("name", [None, "batch-1"])
def test_an_id_that_is_taken_is_an_error_and_not_a_repeat(device_key, name):
    for number in range(3):
        store_batches([batch_of(device_key, alert(f"{number}"))])
    set_back("ingest_batches")
    with pytest.raises(IntegrityError):
        store_batches([batch_of(device_key, alert("new"), name=name)])
    assert not SecurityAlert.objects.filter(title="new").exists()
    assert IngestBatch.objects.count() == 3


@servers_only
def test_no_new_alert_gets_an_id_below_one_that_a_page_may_have(device_key):
    """Even if the ids in between are free, because the transaction that took them was rolled back."""
    for number in range(5):
        store_batches([batch_of(device_key, alert(f"{number}"))])
    ids = list(SecurityAlert.objects.order_by("id").values_list("id", flat=True))
    SecurityAlert.objects.filter(pk__in=ids[1:-1]).delete()
    set_back("security_alerts")
    alerts = store_batches([batch_of(device_key, log(), alert("a"), alert("b"))]).alerts
    assert [(alert.title, alert.pk) for alert in alerts] == [("a", ids[-1] + 1), ("b", ids[-1] + 2)]


def swallow(table: str) -> str:
    """SQL that makes the database silently discard new rows of `table`."""
    if connection.vendor == "postgresql":
        return f"""
            CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
            CREATE TRIGGER swallow BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION swallow()
        """
    return f"CREATE TRIGGER swallow BEFORE INSERT ON {table} BEGIN SELECT RAISE(IGNORE); END"


@pytest.fixture
def swallowed_batches():
    with connection.cursor() as cursor:
        cursor.execute(swallow("ingest_batches"))
        yield
        cursor.execute("DROP TRIGGER swallow" + (" ON ingest_batches" if connection.vendor == "postgresql" else ""))
        if connection.vendor == "postgresql":
            cursor.execute("DROP FUNCTION swallow()")


@pytest.mark.parametrize("name", [None, "batch-1"])
def test_a_batch_that_is_neither_stored_nor_found_is_not_a_repeat(device_key, swallowed_batches, name):
    (error,) = store_batches([batch_of(device_key, log(), name=name)]).refused.values()
    assert isinstance(error, DatabaseError)
    assert "neither stored nor found" in str(error)


def test_only_the_repeats_fail_if_the_database_fails_when_they_are_looked_up(device_key):
    """The others are committed by then."""

    def fail_to_look(execute, sql, *arguments):
        if sql.startswith("SELECT") and 'FROM "ingest_batches"' in sql:
            raise OperationalError("a fault")
        return execute(sql, *arguments)

    repeat, new = batch_of(device_key, log()), batch_of(device_key, alert())
    store_batches([repeat])
    with connection.execute_wrapper(fail_to_look):
        outcome = store_batches([repeat, new])
    assert {index: type(error) for index, error in outcome.refused.items()} == {0: OperationalError}
    assert len(outcome.alerts) == SecurityAlert.objects.count() == 1


def test_a_batch_that_is_neither_stored_nor_found_is_503_for_its_device(server, device_key, swallowed_batches):
    assert_problem(server.post(device_key.plaintext, [log()]), 503, "storage_unavailable")
