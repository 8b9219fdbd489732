"""How much a device may send, and that alerts get through."""

import json
import time

import pytest
from django.utils import timezone

from devices.models import DeviceKey
from ingest.checking import check_batch
from ingest.errors import RateLimited
from ingest.limiter import Limiter
from tests.support.assertions import assert_problem
from tests.support.events import alert, log

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    moment = [1000.0]
    monkeypatch.setattr("ingest.limiter.time.monotonic", lambda: moment[0])
    return moment


@pytest.fixture
def limited(settings, device_key):
    """Takes a batch of `events` and `alerts`, from a device with ten events per second and a burst of twenty."""
    settings.INGEST_EVENTS_PER_SECOND, settings.INGEST_BURST = 10, 20
    limiter = Limiter()
    key = DeviceKey.objects.select_related("device__tenant").get(pk=device_key.pk)

    def take(events: int, alerts: int = 0) -> None:
        batch = [log() for _ in range(events)] + [alert() for _ in range(alerts)]
        if allowance := limiter.of(key.device):
            allowance.take(check_batch(json.dumps(batch).encode(), key, None, timezone.now()))

    take.device, take.limiter = key.device, limiter
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


def test_a_batch_larger_than_the_burst_is_accepted_and_leaves_a_debt(limited, clock):
    limited(100)
    with pytest.raises(RateLimited) as refused:
        limited(1)
    assert refused.value.wait == 9  # a debt of 80 events, and one more
    clock[0] += refused.value.wait
    limited(1)


def test_unused_tokens_are_kept_up_to_the_burst(limited, clock):
    limited(20)
    clock[0] += 3600
    limited(20)
    with pytest.raises(RateLimited):
        limited(1)


def test_alerts_are_counted_apart_from_other_events_and_not_delayed_by_them(limited, clock):
    limited(0, alerts=50)
    limited(20)
    limited(0, alerts=50)
    with pytest.raises(RateLimited) as refused:
        limited(1)
    assert refused.value.wait == 1


def test_an_alert_in_a_batch_does_not_lift_the_limit_on_other_events(limited, clock):
    limited(19, alerts=1)
    limited(20, alerts=1)
    with pytest.raises(RateLimited) as refused:
        limited(1, alerts=1)
    assert refused.value.wait == 2  # a debt of 19 events, and one more
    limited(0, alerts=1)


def test_alerts_have_their_own_generous_limit(limited, clock):
    limited(0, alerts=1000)  # the smallest burst for alerts
    with pytest.raises(RateLimited):
        limited(0, alerts=1)
    limited(20)
    clock[0] += 1
    limited(0, alerts=100)  # ten times the rate
    with pytest.raises(RateLimited):
        limited(0, alerts=1)


def test_an_empty_batch_counts_as_an_event(limited, clock):
    for _ in range(20):
        limited(0)
    with pytest.raises(RateLimited):
        limited(0)


def test_a_refused_body_costs_tokens_and_without_tokens_no_body_is_admitted(limited, clock):
    bad, with_alert = b"[" * 10, b'[{"kind": "security_alert"}]'
    allowance = limited.limiter.of(limited.device)
    allowance.admit(bad)
    allowance.charge(event_count=19, size=len(bad))
    with pytest.raises(RateLimited):
        allowance.admit(bad)
    allowance.admit(with_alert)
    allowance.charge(event_count=0, size=1023 * 1024)  # by its size, because nothing could be read
    with pytest.raises(RateLimited):
        allowance.admit(with_alert)
    clock[0] += 1
    allowance.admit(bad)


def test_a_device_may_have_its_own_limits(limited, clock):
    limited.device.events_per_second, limited.device.burst = 1, 5
    limited(5)
    with pytest.raises(RateLimited):
        limited(1)
    limited.device.events_per_second = 0
    limited(500)


def test_a_device_is_told_when_to_retry(start_server, transactional_db, device_key, make_key):
    other = make_key()[1]
    # Slow enough that it is still over its limit after the requests below, however busy the machine is.
    device_key.device.events_per_second, device_key.device.burst = 1, 15
    device_key.device.save()
    server = start_server()
    key, body = device_key.plaintext, json.dumps([log()]).encode()
    assert server.post(key, [log() for _ in range(20)]).status_code == 204
    refused = server.post(key, content=body)
    assert_problem(refused, 429, "rate_limited")
    assert server.post(other, [log()]).status_code == 204
    assert server.post(key, [alert()]).status_code == 204
    assert_problem(server.post(key, [alert(), log()]), 429, "rate_limited")
    time.sleep(int(refused.headers["Retry-After"]))
    assert server.post(key, content=body).status_code == 204
    server.stop()


def test_refused_batches_count_and_so_do_the_events_that_a_lenient_one_leaves_out(
    start_server, transactional_db, device_key
):
    device_key.device.events_per_second, device_key.device.burst = 1, 10
    device_key.device.save()
    bad, key = [log(level=7)] * 9, device_key.plaintext
    for headers, status in (({}, 400), ({"Prefer": "handling=lenient"}, 200)):
        server = start_server()
        assert server.post(key, bad, headers=headers).status_code == status
        assert server.post(key, bad, headers=headers).status_code in (status, 429)
        assert_problem(server.post(key, bad, headers=headers), 429, "rate_limited")
        server.stop()
