"""What the groups that pass a filter have in common: how many, when their alerts came, and from and to where."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.api.filters import FilterSerializer, GroupFilter, beginning_of
from alerts.models import AlertGroup, SecurityAlert, Severity
from common.id_order import RECEIVED_SLACK, first_id, next_id
from tenants.api import PersonView, validated
from tenants.isolation import bypass_isolation

MAX_GROUPS = 10_000  # the last changed of them are looked at
MAX_ALERTS = 20_000  # the newest of them in the time
BUCKETS = 48
MIN_BUCKET_SECONDS = 60
TOP = 10
DEFAULT_SPAN = timedelta(days=1)
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)  # room for the slack

Alert = tuple[int, datetime, str]  # group id, when it was received, severity


class GroupSummaryView(PersonView):
    """Counts of groups by severity and status; of their alerts in the time of the filter, a timeline and the ends."""

    def get(self, request: Request) -> Response:
        given = validated(FilterSerializer, request.query_params)
        found = GroupFilter.of(request).find(MAX_GROUPS + 1)
        ids = [pk for _, pk in found[:MAX_GROUPS]]
        groups = list(AlertGroup.objects.filter(pk__in=ids).select_related("device").only(*COLUMNS))
        span = Span.of(beginning_of(given), given.get("until"))
        alerts = alerts_in(span, ids)
        return Response(
            {
                "total": len(ids),
                "is_exact": len(found) <= MAX_GROUPS,
                "by_severity": Counter(group.severity for group in groups),
                "by_status": Counter(group.status for group in groups),
                "timeline": timeline(span, alerts[:MAX_ALERTS]) | {"is_exact": len(alerts) <= MAX_ALERTS},
                "top": top(groups, Counter(group_id for group_id, *_ in alerts[:MAX_ALERTS])),
            }
        )


COLUMNS = ("severity", "status", "source_ip", "destination_ip", "device__name")


@dataclass(frozen=True)
class Span:
    """A time with a beginning and an end; the last day unless something else is given."""

    since: datetime
    until: datetime

    @classmethod
    def of(cls, since: datetime | None, until: datetime | None) -> "Span":
        end = max(min(until or timezone.now(), timezone.now()), EARLIEST + DEFAULT_SPAN)
        return cls(min(max(since or end - DEFAULT_SPAN, EARLIEST), end), end)

    @property
    def seconds(self) -> float:
        return (self.until - self.since).total_seconds()


def alerts_in(span: Span, group_ids: list[int]) -> list[Alert]:
    """The newest alerts of these groups in the time, one more than are counted."""
    with bypass_isolation():  # everybody's ids lead to the time
        everyones = SecurityAlert.objects.all()
        end = next_id(everyones)
        first = first_id(everyones, "received_at", span.since - RECEIVED_SLACK, end)
        last = first_id(everyones, "received_at", span.until + RECEIVED_SLACK, end)
    alerts = SecurityAlert.objects.filter(
        pk__gte=first, pk__lt=last, group__in=group_ids, suppressed_by=None,
        received_at__gte=span.since, received_at__lte=span.until,
    )  # fmt: skip
    return list(alerts.order_by("-pk").values_list("group", "received_at", "severity")[: MAX_ALERTS + 1])


def timeline(span: Span, alerts: Iterable[Alert]) -> dict[str, object]:
    """How many alerts came in each part of the time, by severity."""
    seconds = max(MIN_BUCKET_SECONDS, math.ceil(span.seconds / BUCKETS))
    counts = Counter(
        (int((moment - span.since).total_seconds() // seconds), severity) for _, moment, severity in alerts
    )
    buckets = [
        {"start": (span.since + timedelta(seconds=number * seconds)).isoformat()}
        | {severity: counts[number, severity] for severity in Severity.values}
        for number in range(math.ceil(span.seconds / seconds))
    ]
    return {"bucket_seconds": seconds, "buckets": buckets}


def top(groups: list[AlertGroup], counts: Counter[int]) -> dict[str, object]:
    """The addresses and devices with the most alerts; devices, of the groups that have no address."""
    sources, destinations, devices = Counter(), Counter(), Counter()  # type: ignore[var-annotated]
    for group in groups:
        sources[group.source_ip] += counts[group.pk]
        destinations[group.destination_ip] += counts[group.pk]
        devices[group.device and (group.device.pk, group.device.name)] += counts[group.pk]
    return {
        "sources": [{"value": value, "count": count} for value, count in most(sources)],
        "destinations": [{"value": value, "count": count} for value, count in most(destinations)],
        "devices": [{"id": pk, "name": name, "count": count} for (pk, name), count in most(devices)],
    }


def most(counts: Counter) -> list[tuple]:
    return [(key, count) for key, count in counts.most_common(TOP + 1) if key is not None and count > 0][:TOP]
