"""What is looked at once more when a batch is stored, for its check may have been a moment ago."""

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from alerts.models import SecurityAlert
from devices.authentication import InvalidDeviceKey
from devices.models import DeviceKey, Tenant
from ingest.batch import check_batch
from ingest.errors import ModuleDisabled
from ingest.models import IngestBatch, IngestEvent
from ingest.store import store_batches
from tests.events import EXAMPLES, alert, log

pytestmark = pytest.mark.django_db(transaction=True)

BACKUP = json.loads(EXAMPLES["backup_event"])


def batch_of(key: DeviceKey, *events: dict):
    loaded = DeviceKey.objects.select_related("device__tenant").get(pk=key.pk)
    return check_batch(json.dumps(events).encode(), loaded, "10.0.0.7", timezone.now())


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
def test_a_key_or_module_that_is_good_no_more_refuses_its_own_batches_only(make_key, make_tenant, change, refusal):
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


def test_an_empty_batch_of_a_key_that_is_good_no_more_is_refused_too(device_key):
    batch = batch_of(device_key)
    revoke(device_key)
    assert set(store_batches([batch]).refused) == {0}


def test_the_same_batch_by_two_keys_of_a_device_is_stored_once_where_one_is_good(device_key):
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


def test_alerts_get_their_ids_in_the_order_of_their_batch_and_keep_what_they_say(make_key):
    keys = [make_key()[0] for _ in range(3)]
    batches = [batch_of(key, log(), *(alert(f"{n}", source_ip="10.0.0.9") for n in range(20))) for key in keys]
    alerts = store_batches([*batches, batches[0]]).alerts
    assert [alert.pk for alert in alerts] == list(range(alerts[0].pk, alerts[0].pk + 60))
    rows = SecurityAlert.objects.in_bulk([alert.pk for alert in alerts])
    for alert_ in alerts:
        row = rows[alert_.pk]
        assert (row.title, row.device_id, row.tenant_id) == (alert_.title, alert_.device_id, alert_.tenant_id)
        assert IngestBatch.objects.get(pk=row.batch_id).device_id == alert_.device_id
        assert (row.source_ip, row.severity, row.status) == ("10.0.0.9", "high", "open")
        assert (row.timestamp, row.received_at) == (alert_.timestamp, alert_.received_at)
    assert all(
        [alert.title for alert in alerts if alert.device_id == key.device_id] == [str(n) for n in range(20)]
        for key in keys
    )


def test_a_repeat_has_no_new_alerts(device_key):
    batch = batch_of(device_key, alert())
    assert len(store_batches([batch]).alerts) == 1
    assert store_batches([batch]).alerts == []
