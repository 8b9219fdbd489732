"""What the groups that pass a filter have in common: how many, when, and from and to where."""

import math
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, QuerySet, Sum
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.api.filters import GroupFilter
from alerts.models import AlertGroup, SecurityAlert, Severity
from common.id_order import RECEIVED_SLACK, first_id, next_id
from tenants.api import PersonView
from tenants.isolation import bypass_isolation

MAX_GROUPS = 10_000  # the last changed of them are looked at
MAX_ALERTS = 20_000  # in the timeline: the newest of them
BUCKETS = 48
MIN_BUCKET_SECONDS = 60
TOP = 10
DEFAULT_SPAN = timedelta(days=1)


class GroupSummaryView(PersonView):
    """Counts by severity and status, a timeline of alerts, and the most frequent addresses and devices."""

    def get(self, request: Request) -> Response:
        found_by = GroupFilter.of(request)
        found = found_by.find(MAX_GROUPS + 1)
        ids = [pk for _, pk in found[:MAX_GROUPS]]
        groups = AlertGroup.objects.filter(pk__in=ids)
        now = timezone.now()
        since = min(found_by.since or now - DEFAULT_SPAN, now)
        return Response(
            {
                "total": len(ids),
                "is_exact": len(found) <= MAX_GROUPS,
                "by_severity": counted(groups, "severity"),
                "by_status": counted(groups, "status"),
                "timeline": timeline(ids, since, now),
                "top": {
                    "sources": top_addresses(groups, "source_ip"),
                    "destinations": top_addresses(groups, "destination_ip"),
                    "devices": top_devices(groups),
                },
            }
        )


def counted(groups: QuerySet[AlertGroup], field: str) -> dict[str, int]:
    return dict(groups.order_by().values_list(field).annotate(Count("pk")))


def top_addresses(groups: QuerySet[AlertGroup], field: str) -> list[dict[str, object]]:
    """The addresses with the most alerts."""
    rows = groups.exclude(**{field: None}).order_by().values_list(field).annotate(alerts=Sum("count"))
    return [{"value": value, "count": count} for value, count in rows.order_by("-alerts", field)[:TOP]]


def top_devices(groups: QuerySet[AlertGroup]) -> list[dict[str, object]]:
    """The devices with the most alerts, of the groups that belong to a device."""
    rows = groups.exclude(device=None).order_by().values_list("device", "device__name").annotate(alerts=Sum("count"))
    return [{"id": pk, "name": name, "count": count} for pk, name, count in rows.order_by("-alerts", "device")[:TOP]]


def timeline(group_ids: list[int], since: datetime, now: datetime) -> dict[str, Any]:
    """How many alerts of these groups came in each part of the time since `since`, by severity."""
    seconds = max(MIN_BUCKET_SECONDS, math.ceil((now - since).total_seconds() / BUCKETS))
    counts: Counter[tuple[int, str]] = Counter()
    for received_at, severity in alerts_since(group_ids, since):
        counts[int((received_at - since).total_seconds() // seconds), severity] += 1
    buckets = [
        {"start": (since + timedelta(seconds=number * seconds)).isoformat()}
        | {severity: counts[number, severity] for severity in Severity.values}
        for number in range(math.ceil((now - since).total_seconds() / seconds))
    ]
    return {"bucket_seconds": seconds, "buckets": buckets}


def alerts_since(group_ids: list[int], since: datetime) -> QuerySet:
    """When the newest alerts of these groups came, and how severe they are."""
    with bypass_isolation():  # everybody's ids lead to the time
        everyones = SecurityAlert.objects.all()
        first = first_id(everyones, "received_at", since - RECEIVED_SLACK, next_id(everyones))
    alerts = SecurityAlert.objects.filter(
        pk__gte=first, group__in=group_ids, suppressed_by=None, received_at__gte=since
    )
    return alerts.order_by("-pk").values_list("received_at", "severity")[:MAX_ALERTS]
