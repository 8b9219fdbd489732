"""Charts of what was received and refused, from the counts of `insights` and `ingest.tallies`, drawn by Chart.js."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Sum
from django.db.models.functions import TruncHour, TruncMinute
from django.http import HttpRequest
from django.utils import timezone

from ingest.models import Kind, LatencyCount, RefusalCount
from ingestcloud.admin_theme import is_superuser, may_look_at
from insights.models import TenantHour, TenantMinute
from tenants.isolation import bypass_isolation

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
MAX_REASONS = 5  # that a chart tells apart
OTHERS = "others"
# Readable on white and on black; the order is that of the legend.
COLOURS = ("#2563eb", "#ea580c", "#16a34a", "#c026d3", "#0891b2", "#71717a")
OPTIONS = json.dumps({
    "animation": False,
    "responsive": True,
    "maintainAspectRatio": False,
    "interaction": {"mode": "index", "intersect": False},
    "elements": {"point": {"radius": 0}},
    "plugins": {"legend": {"position": "bottom", "labels": {"color": "#9ca3af", "boxWidth": 12, "boxHeight": 2}}},
    "scales": {
        "x": {"grid": {"display": False}, "ticks": {"color": "#9ca3af", "maxTicksLimit": 7, "maxRotation": 0}},
        "y": {"grid": {}, "beginAtZero": True, "ticks": {"color": "#9ca3af", "maxTicksLimit": 5}},
    },
})  # fmt: skip


@dataclass(frozen=True)
class Period:
    """How far charts look back, and the steps in which they do."""

    key: str
    name: str
    length: timedelta
    step: timedelta
    label: str  # of a step, as strftime has it

    def starts(self, now: datetime) -> list[datetime]:
        """The beginnings of the steps, the last of which is going on now."""
        last = now.replace(second=0, microsecond=0)
        last = last if self.step == MINUTE else last.replace(minute=0)
        count = self.length // self.step
        return [last - self.step * number for number in reversed(range(count))]


PERIODS = {
    period.key: period
    for period in (
        Period("1h", "1 hour", HOUR, MINUTE, "%H:%M"),
        Period("24h", "24 hours", timedelta(days=1), HOUR, "%H:%M"),
        Period("7d", "7 days", timedelta(days=7), HOUR, "%a %H:%M"),
    )
}


class Chart:
    """Lines over the steps of a period. `totals` says the same in words, for those who can't see it."""

    options = OPTIONS

    def __init__(self, title: str, labels: list[str], lines: dict[str, list[float]], totals: dict[str, str]) -> None:
        self.title = title
        self.totals = totals
        self.data = json.dumps({
            "labels": labels,
            "datasets": [
                {"label": name, "data": values, "borderColor": colour, "backgroundColor": colour, "borderWidth": 2}
                for (name, values), colour in zip(lines.items(), COLOURS, strict=False)
            ],
        })  # fmt: skip


def chosen_period(request: HttpRequest) -> Period:
    return PERIODS.get(request.GET.get("period", ""), PERIODS["24h"])


def shown_to(request: HttpRequest) -> Iterator[Chart]:
    period, now = chosen_period(request), timezone.now()
    if may_look_at("ingest", "ingestbatch")(request):
        yield events(request.user, period, now)
    if may_look_at("ingest", "rejectedbatch")(request):
        yield refusals(request.user, period, now)
    if is_superuser(request):
        yield latency(period, now)


def events(user: Any, period: Period, now: datetime) -> Chart:
    """Events a minute, by kind."""
    starts = period.starts(now)
    model = TenantMinute if period.step == MINUTE else TenantHour
    sums = {f"{kind.value}_sum": Sum(kind.value) for kind in Kind}
    rows = model.objects.for_user(user).filter(start__gte=starts[0]).order_by().values("start").annotate(**sums)
    by_start: dict[datetime, Any] = {row["start"]: row for row in rows}
    counts = {
        str(kind.label): [by_start[start][f"{kind.value}_sum"] if start in by_start else 0 for start in starts]
        for kind in Kind
    }
    minutes = [(min(period.step, now - start) / MINUTE) or 1 for start in starts]
    lines = {
        name: [round(count / length, 1) for count, length in zip(values, minutes, strict=True)]
        for name, values in counts.items()
    }
    return _chart("Events a minute", period, starts, lines, {name: sum(values) for name, values in counts.items()})


def refusals(user: Any, period: Period, now: datetime) -> Chart:
    """Refused batches, by reason."""
    starts = period.starts(now)
    step = TruncMinute("minute") if period.step == MINUTE else TruncHour("minute")
    rows = RefusalCount.objects.for_user(user).filter(minute__gte=starts[0]).order_by()
    counts: dict[str, dict[datetime, int]] = defaultdict(lambda: defaultdict(int))
    for start, code, requests in rows.values_list(step, "code").annotate(Sum("requests")):
        counts[code][start] += requests
    totals = {code: sum(by_start.values()) for code, by_start in counts.items()}
    reasons = sorted(totals, key=lambda code: (-totals[code], code))
    shown = reasons if len(reasons) <= MAX_REASONS + 1 else reasons[:MAX_REASONS]
    lines = {code: [counts[code][start] for start in starts] for code in shown}
    if rest := reasons[len(shown) :]:
        lines[OTHERS] = [sum(counts[code][start] for code in rest) for start in starts]
    unit = "a minute" if period.step == MINUTE else "an hour"
    return _chart(f"Refused batches {unit}", period, starts, lines, {name: sum(line) for name, line in lines.items()})


def latency(period: Period, now: datetime) -> Chart:
    """How long it took to store a batch: the upper ends of the classes with the median and the 99th percentile."""
    starts = period.starts(now)
    step = TruncMinute("minute") if period.step == MINUTE else TruncHour("minute")
    rows = LatencyCount.objects.filter(minute__gte=starts[0]).order_by()
    counts: dict[datetime, dict[int, int]] = defaultdict(dict)
    with bypass_isolation():  # they belong to no tenant, and only superusers get here
        for start, milliseconds, requests in rows.values_list(step, "milliseconds").annotate(Sum("requests")):
            counts[start][milliseconds] = requests
    everything: dict[int, int] = defaultdict(int)
    for classes in counts.values():
        for milliseconds, requests in classes.items():
            everything[milliseconds] += requests
    parts = {"median": 0.5, "99th percentile": 0.99}
    lines: dict[str, list[float]] = {
        name: [percentile(counts[start], part) or 0 for start in starts] for name, part in parts.items()
    }
    totals = {
        name: f"up to {found:,} ms" if (found := percentile(everything, part)) else "no batches"
        for name, part in parts.items()
    }
    labels = [f"{start:{period.label}}" for start in starts]
    return Chart("Milliseconds to store a batch", labels, lines, totals)


def percentile(classes: dict[int, int], part: float) -> int | None:
    """The upper end of the class that has the value below which `part` of all are."""
    wanted, seen = part * sum(classes.values()), 0
    for milliseconds in sorted(classes):
        seen += classes[milliseconds]
        if seen >= wanted:
            return milliseconds
    return None


def _chart(
    title: str, period: Period, starts: list[datetime], lines: dict[str, list[Any]], totals: dict[str, int]
) -> Chart:
    labels = [f"{start:{period.label}}" for start in starts]
    return Chart(title, labels, lines, {name: f"{count:,}" for name, count in totals.items()})
