"""Alerts that a rule suppresses are stored and counted, and nobody is told."""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alerts.broadcast import frame_of
from alerts.consumers import alerts_after, newest_id
from alerts.hub import alerts_after as frames_after
from alerts.models import AlertGroup, SecurityAlert, Severity, Status, SuppressionRule
from alerts.new_alert import NewAlert
from alerts.suppression import condition_of, suppresses
from devices.models import DeviceKey
from ingest.storing.store import store_batches
from tests.support.alert_rows import set_status, suppression_rule
from tests.support.events import alert
from tests.test_alert_groups import NOW, SCAN, batch_of, close, store

pytestmark = pytest.mark.django_db(transaction=True)

LATER = NOW + timedelta(minutes=5)


def shown() -> list[AlertGroup]:
    return list(AlertGroup.objects.visible().order_by("pk"))


@pytest.fixture
def rule(tenant) -> SuppressionRule:
    return suppression_rule(tenant, NOW, source="192.0.2.0/24")


def test_suppressed_alerts_are_stored_and_their_group_is_hidden(device_key, rule):
    first, other, last = store(device_key, alert(**SCAN), alert("Disk full"), alert(**SCAN))
    assert [each.is_suppressed for each in (first, other, last)] == [True, False, True]
    assert [group.title for group in shown()] == ["Disk full"]
    hidden = AlertGroup.objects.get(title="Port scan")
    assert (hidden.count, hidden.suppressed_count, hidden.last_alert_id) == (0, 2, last.pk)
    stored = SecurityAlert.objects.filter(group=hidden)
    assert list(stored.values_list("suppressed_by", flat=True)) == [rule.pk, rule.pk]
    assert SecurityAlert.objects.get(title="Disk full").suppressed_by is None


def test_suppressed_alerts_change_nothing_but_their_number(device_key, tenant):
    store(device_key, alert(**SCAN, severity="low"))
    before = AlertGroup.objects.values().get()
    suppression_rule(tenant, NOW, title="Port scan")
    store(device_key, alert(**SCAN, severity="high"), at=LATER)
    assert AlertGroup.objects.values().get() == before | {"suppressed_count": 1}


def test_an_alert_shows_a_hidden_group_as_if_it_were_the_first(device_key, rule):
    store(device_key, alert(**SCAN, severity="high"))
    SuppressionRule.objects.update(ends_at=LATER)
    store(device_key, alert(**SCAN, severity="low"), at=LATER)
    [group] = shown()
    assert (group.count, group.suppressed_count, group.severity) == (1, 1, "low")
    assert (group.first_seen_at, group.last_seen_at) == (LATER, LATER)
    assert group.last_alert_id == SecurityAlert.objects.newest_id()


def test_one_transaction_may_have_both_in_one_group(device_key, tenant):
    suppression_rule(tenant, NOW, title="Port scan", worst_severity="low")
    _, worse, _ = store(*[device_key], *(alert(**SCAN, severity=severity) for severity in ("low", "medium", "info")))
    [group] = shown()
    assert (group.count, group.suppressed_count, group.severity) == (1, 2, "medium")
    assert group.last_alert_id == worse.pk


def test_suppressed_alerts_do_not_make_a_silent_group_new(device_key, tenant):
    store(device_key, alert(**SCAN))
    set_status(AlertGroup.objects.all(), Status.ACKNOWLEDGED)
    suppression_rule(tenant, NOW + timedelta(hours=25), title="Port scan")
    store(device_key, alert(**SCAN), at=NOW + timedelta(hours=25))
    assert AlertGroup.objects.get().status == Status.ACKNOWLEDGED


def test_a_closed_group_gets_a_hidden_follower(device_key, tenant):
    store(device_key, alert(**SCAN))
    closed = AlertGroup.objects.get()
    close(closed)
    suppression_rule(tenant, NOW, title="Port scan")
    store(device_key, alert(**SCAN))
    follower = AlertGroup.objects.latest("pk")
    assert (follower.previous, follower.count, follower.suppressed_count) == (closed, 0, 1)


def test_a_rule_is_for_its_tenant_and_until_its_end(make_key, make_tenant):
    one, other = make_tenant(), make_tenant()
    keys = [make_key(one)[0], make_key(other)[0]]
    rule = suppression_rule(one, NOW, title="Disk full")
    just_before = rule.ends_at - timedelta(microseconds=1)
    sent = ((0, just_before), (0, rule.ends_at), (1, NOW))
    batches = [batch_of(keys[n], alert("Disk full"), at=at, name=str(at)) for n, at in sent]
    store_batches(batches)
    assert [alert.is_suppressed for batch in batches for alert in batch.alerts] == [True, False, False]


def test_the_oldest_of_several_rules_counts_the_alert(device_key, tenant):
    rules = [suppression_rule(tenant, NOW, title=title, title_match="contains") for title in ("Port", "Port scan")]
    store(device_key, alert(**SCAN))
    assert SecurityAlert.objects.get().suppressed_by == rules[0]


def test_suppressed_alerts_have_no_frames_but_keep_their_places(device_key, rule, admin_user):
    alerts = store(device_key, alert(**SCAN), alert("Disk full"), alert(**SCAN))
    assert [bool(text) for _, _, text in map(frame_of, alerts)] == [False, True, False]
    assert [(pk, bool(text)) for _, pk, text in frames_after(0)] == [(a.pk, not a.is_suppressed) for a in alerts]
    assert [data["title"] for data in alerts_after(admin_user, 0)] == ["Disk full"]
    assert newest_id(admin_user) == alerts[-1].pk


TITLES = st.sampled_from(["", "a", "A", "ab", "b%", "_", "\u00c4b", "\u00e4b"])
NETWORKS = st.sampled_from(["", "10.0.0.1/32", "10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0", "::/0"])
ADDRESSES = st.sampled_from([None, "10.0.0.1", "10.9.0.1", "11.0.0.1", "2001:db8::1", "::ffff:10.0.0.1"])
SEVERITIES = st.sampled_from(Severity.values)
RULES = st.fixed_dictionaries(
    {
        "title": TITLES,
        "title_match": st.sampled_from(["equals", "contains"]),
        "source": NETWORKS,
        "destination": NETWORKS,
        "worst_severity": SEVERITIES,
        "of_device": st.booleans(),
    }
)
ALERTS = st.fixed_dictionaries(
    {
        "title": TITLES.filter(bool),
        "source_ip": ADDRESSES,
        "destination_ip": ADDRESSES,
        "severity": SEVERITIES,
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(RULES, min_size=1, max_size=3), sent=st.lists(st.tuples(st.integers(0, 1), ALERTS), max_size=20))
def test_the_three_ways_to_apply_a_rule_agree(wanted, sent, make_key, tenant):
    keys = [make_key(tenant)[0] for _ in range(2)]
    rules = [rule_of(tenant, keys[0], fields) for fields in wanted]
    batches = [batch_of(keys[n], alert(**fields), name=f"{rules[0].pk}-{m}") for m, (n, fields) in enumerate(sent)]
    store_batches(batches)
    for stored in SecurityAlert.objects.all():
        by_query = [
            rule.pk for rule in rules if SecurityAlert.objects.filter(condition_of(rule), pk=stored.pk).exists()
        ]
        by_object = [rule.pk for rule in rules if suppresses(rule, as_new(stored))]
        assert by_query == by_object
        assert stored.suppressed_by_id == (by_query[0] if by_query else None)
    for model in (SecurityAlert, AlertGroup, SuppressionRule):
        model.objects.all().delete()


def rule_of(tenant, key: DeviceKey, fields: dict) -> SuppressionRule:
    others = {name: value for name, value in fields.items() if name != "of_device"}
    return suppression_rule(tenant, NOW, device_id=key.device_id if fields["of_device"] else None, **others)


def as_new(stored: SecurityAlert) -> NewAlert:
    names = ("timestamp", "received_at", "title", "severity", "source_ip", "destination_ip", "description")
    return NewAlert(stored.tenant, stored.device, *(getattr(stored, name) for name in names))
