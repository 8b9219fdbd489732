"""How much a device may send, and that alerts come through."""

import json
import time

import pytest
from django.utils import timezone

from devices.models import DeviceKey
from ingest.batch import check_batch
from ingest.errors import RateLimited
from ingest.limiter import Limiter
from tests.events import alert, log
from tests.problems import assert_problem

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    moment = [1000.0]
    monkeypatch.setattr("ingest.limiter.time.monotonic", lambda: moment[0])
    return moment


@pytest.fixture
def limited(settings, device_key):
    """Takes a batch of so many events, of a device with ten events a second and twenty at once."""
    settings.INGEST_EVENTS_PER_SECOND, settings.INGEST_BURST = 10, 20
    limiter = Limiter()
    key = DeviceKey.objects.select_related("device__tenant").get(pk=device_key.pk)

    def take(events: int, alerts: int = 0) -> None:
        batch = [log() for _ in range(events)] + [alert() for _ in range(alerts)]
        limiter.take(check_batch(json.dumps(batch).encode(), key, None, timezone.now()))

    take.device = key.device
    return take


def test_a_burst_and_then_the_rate(limited, clock):
    limited(20)
    with pytest.raises(RateLimited) as refused:
        limited(1)
    assert refused.value.wait == 1
    clock[0] += 1
    limited(10)
    with pytest.raises(RateLimited):
        limited(1)


def test_no_batch_is_too_large_to_be_ever_taken(limited, clock):
    limited(100)
    with pytest.raises(RateLimited) as refused:
        limited(1)
    assert refused.value.wait == 9  # a debt of 80 events, and one more
    clock[0] += refused.value.wait
    limited(1)


def test_what_is_not_used_is_kept_up_to_the_burst(limited, clock):
    limited(20)
    clock[0] += 3600
    limited(20)
    with pytest.raises(RateLimited):
        limited(1)


def test_alerts_are_not_counted_and_not_held_up(limited, clock):
    limited(0, alerts=50)
    limited(20)
    limited(0, alerts=1)
    limited(30, alerts=1)  # the others in its batch are counted
    with pytest.raises(RateLimited) as refused:
        limited(1)
    assert refused.value.wait == 4


def test_a_device_may_have_limits_of_its_own(limited, clock):
    limited.device.events_per_second, limited.device.burst = 1, 5
    limited(5)
    with pytest.raises(RateLimited):
        limited(1)
    limited.device.events_per_second = 0
    limited(500)


def test_a_device_is_told_when_to_come_again(start_server, transactional_db, device_key, make_key):
    other = make_key()[1]
    device_key.device.events_per_second, device_key.device.burst = 5, 10
    device_key.device.save()
    server = start_server()
    key, body = device_key.plaintext, json.dumps([log()]).encode()
    assert server.post(key, [log() for _ in range(12)]).status_code == 204
    refused = server.post(key, content=body)
    assert_problem(refused, 429, "rate_limited")
    assert server.post(other, [log()]).status_code == 204
    assert server.post(key, [alert()]).status_code == 204
    time.sleep(int(refused.headers["Retry-After"]))
    assert server.post(key, content=body).status_code == 204
    server.stop()
