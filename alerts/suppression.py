"""What a suppression rule means. `ingest.storing.postgresql` says the same in SQL; a test compares all three."""

from ipaddress import ip_address, ip_network
from typing import Any

from django.db.models import Q, Value
from django.db.models.functions import StrIndex
from django.db.models.lookups import GreaterThan

from alerts.models import Severity, SuppressionRule
from alerts.new_alert import NewAlert


def suppresses(rule: SuppressionRule, alert: NewAlert) -> bool:
    """Whether `rule` suppresses an alert of its tenant."""
    return (
        alert.received_at < rule.ends_at
        and alert.severity in severities_of(rule)
        and (not rule.title or alert.title == rule.title or (rule.is_contained and rule.title in alert.title))
        and _within(alert.source_ip, rule.source)
        and _within(alert.destination_ip, rule.destination)
        and rule.device_id in (None, alert.device_id)
    )


def condition_of(rule: SuppressionRule) -> Q:
    """The condition on stored alerts that `rule` would have suppressed, had it been in force."""
    condition = Q(tenant=rule.tenant_id, severity__in=severities_of(rule))
    if rule.title and rule.is_contained:
        # Not LIKE: on SQLite it ignores case.
        condition &= Q(GreaterThan(StrIndex("title", Value(rule.title)), 0))
    elif rule.title:
        condition &= Q(title=rule.title)
    if rule.source:
        condition &= Q(source_ip__within=rule.source)
    if rule.destination:
        condition &= Q(destination_ip__within=rule.destination)
    if rule.device_id:
        condition &= Q(device=rule.device_id)
    return condition


def severities_of(rule: SuppressionRule) -> list[str]:
    """Those that `rule` suppresses: no worse ones than it says."""
    return Severity.values[: 1 + Severity.values.index(rule.worst_severity)]


def in_words(rule: SuppressionRule) -> str:
    """What `rule` suppresses, such as "“Port scan” from 10.0.0.0/8, up to medium"."""
    contains = "contains " if rule.is_contained else ""
    words = [f"{contains}“{rule.title}”" if rule.title else "any title"]
    words += [f"from {rule.source}"] if rule.source else []
    words += [f"to {rule.destination}"] if rule.destination else []
    words += [f"by the device {rule.device.name if rule.device else rule.device_id}"] if rule.device_id else []
    return f"{' '.join(words)}, up to {rule.worst_severity}"


def _within(address: str | None, network: Any) -> bool:
    return not network or (address is not None and ip_address(address) in ip_network(network))
