"""Nothing that is sent twice is stored twice, no matter what else is sent at the same time."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from alerts.models import SecurityAlert
from ingest.backlog import MAX_REQUESTS
from ingest.models import IngestBatch, IngestEvent
from tests.support.events import alert, log
from tests.support.servers import servers_only

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_repeat_is_acknowledged_and_stored_once(server, key):
    body = json.dumps([log(), alert()]).encode()
    for _ in range(3):
        assert server.post(key, content=body).status_code == 204
    assert (IngestBatch.objects.count(), IngestEvent.objects.count(), SecurityAlert.objects.count()) == (1, 2, 1)


def test_the_same_bytes_compressed_are_a_repeat(server, key):
    import gzip

    body = json.dumps([log()]).encode()
    server.post(key, content=body)
    server.post(key, content=gzip.compress(body), headers={"Content-Encoding": "gzip"})
    assert IngestBatch.objects.count() == 1


def test_the_same_bytes_from_another_device_are_another_batch(server, make_key):
    body = json.dumps([log()]).encode()
    for _ in range(2):
        server.post(make_key()[1], content=body)
    assert IngestBatch.objects.count() == 2


def test_repeats_at_the_same_time_are_stored_once(server, make_key):
    keys = [make_key()[1] for _ in range(3)]
    body = json.dumps([alert(), log()]).encode()
    with ThreadPoolExecutor(MAX_REQUESTS) as pool:
        answers = list(pool.map(lambda n: server.post(keys[n % 3], content=body).status_code, range(36)))
    assert set(answers) == {204}
    assert (IngestBatch.objects.count(), IngestEvent.objects.count(), SecurityAlert.objects.count()) == (3, 6, 3)


def test_batches_that_share_a_commit_are_judged_separately(server, make_key):
    """Good, repeated, refused and revoked ones, all at the same time."""
    keys = [make_key()[1] for _ in range(4)]
    revoked, revoked_plaintext = make_key()
    assert server.post(revoked_plaintext, [log()]).status_code == 204  # now the server remembers the key
    revoked.revoke()
    jobs = [(key, [log(), alert()], 204) for key in keys * 10]
    jobs += [(revoked_plaintext, [log()], 401)] * 10 + [(keys[0], [log(), {}], 400)] * 10
    with ThreadPoolExecutor(MAX_REQUESTS) as pool:
        answers = list(pool.map(lambda job: server.post(job[0], job[1]).status_code, jobs))
    assert answers == [status for *_, status in jobs]
    assert IngestBatch.objects.count() == 41
    assert SecurityAlert.objects.count() == 40


def test_the_same_bytes_with_another_idempotency_key_are_another_batch(server, key):
    body = json.dumps([log()]).encode()
    for name in ("a", "b", "a", "b"):
        assert server.post(key, content=body, headers={"Idempotency-Key": name}).status_code == 204
    for _ in range(2):
        assert server.post(key, content=body).status_code == 204
    assert IngestBatch.objects.count() == IngestEvent.objects.count() == 3


@servers_only
@pytest.mark.parametrize("tables", [["ingest_batches"], ["ingest_batches", "ingest_events", "security_alerts"]])
def test_every_acknowledged_batch_is_stored_after_a_sequence_was_set_back(server, key, tables):
    for _ in range(5):
        assert server.post(key, [log(), alert()]).status_code == 204
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"SELECT setval('{table}_id_seq', min(id)) FROM {table}")
    for _ in range(5):
        assert server.post(key, [log(), alert()]).status_code == 204
    assert f"was set forward: {', '.join(tables)}\n" in server.log
    assert IngestBatch.objects.count() == IngestEvent.objects.filter(kind="log").count() == 10
    assert IngestEvent.objects.values("id").distinct().count() == 20


@servers_only
def test_no_two_events_get_the_same_id(server, start_server, key):
    """A duplicate is not an error, because the primary key includes the time; servers check before the first batch."""
    for _ in range(5):
        assert server.post(key, [log()]).status_code == 204
    with connection.cursor() as cursor:
        cursor.execute("SELECT setval('ingest_events_id_seq', 1)")
    other = start_server()
    assert other.post(key, [log(), log()]).status_code == 204
    assert IngestEvent.objects.values("id").distinct().count() == IngestEvent.objects.count() == 7
    assert "was set forward: ingest_events\n" in other.log
    other.stop()
