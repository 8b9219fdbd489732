"""Cards: one figure each. A card that is not good leads to the list of what is wrong."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import Count, Max, Q, Sum
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from alerts.models import AlertGroup, Severity, Status
from devices.models import ONLINE_WITHIN, Device, DeviceKey
from ingest.models import RefusedKeyCount, RejectedBatch
from ingest.rejections import oldest_kept
from ingestcloud.admin_theme import is_superuser, may_look_at
from tenants.admin.display import ago

EXPIRING_WITHIN = timedelta(days=14)
MAX_COUNTED_GROUPS = 10_000  # those that changed last
GOOD, BAD, WORTH_A_LOOK = "good", "bad", "warning"


class Card(NamedTuple):
    title: str
    value: str
    url: str
    state: str
    detail: str = ""


def shown_to(request: HttpRequest) -> Iterator[Card]:
    now = timezone.now()
    for model, card in CARDS.items():
        if may_look_at(*model.split("."))(request):
            yield card(request.user, now)
    if is_superuser(request):
        yield refused_keys(now)


def devices_offline(user: Any, now: datetime) -> Card:
    """A device that was never seen is not offline: it may not be installed yet."""
    limit = now - ONLINE_WITHIN
    counts = Device.objects.for_user(user).aggregate(
        all=Count("pk"),
        offline=Count("pk", filter=Q(last_seen_at__lte=limit)),
        never=Count("pk", filter=Q(last_seen_at=None)),
    )
    never = f", {counts['never']:,} never seen" if counts["never"] else ""
    return Card(
        "Devices offline",
        f"{counts['offline']:,}",
        reverse("admin:devices_device_changelist", query={"online": "no"}),
        BAD if counts["offline"] else GOOD,
        f"of {counts['all']:,}{never}",
    )


def new_groups(user: Any, now: datetime) -> Card:
    """Groups that nobody has looked at, once however often they repeat. Only among those that changed last."""
    severe = [Severity.HIGH, Severity.CRITICAL]
    latest = AlertGroup.objects.latest_of(user, MAX_COUNTED_GROUPS)
    count = latest.aggregate(new=Count("pk", filter=Q(status=Status.NEW, severity__in=severe)))["new"]
    query = {"status__exact": Status.NEW.value, "severity__exact": [severity.value for severity in severe]}
    return Card(
        "New alert groups",
        f"{count:,}",
        reverse("admin:alerts_alertgroup_changelist", query=query),
        BAD if count else GOOD,
        "high or critical",
    )


def expiring_keys(user: Any, now: datetime) -> Card:
    keys = DeviceKey.objects.usable(now).for_user(user)
    count = keys.filter(expires_at__lt=now + EXPIRING_WITHIN).count()
    first_to_expire = {"state": "active", "o": "6"}  # ordered by the list's sixth column
    return Card(
        "Keys that expire",
        f"{count:,}",
        reverse("admin:devices_devicekey_changelist", query=first_to_expire),
        WORTH_A_LOOK if count else GOOD,
        f"within {EXPIRING_WITHIN.days} days",
    )


def last_batch(user: Any, now: datetime) -> Card:
    """As the devices noted it, to the minute: no index leads to the newest batch of a tenant."""
    last = Device.objects.for_user(user).aggregate(last=Max("last_seen_at"))["last"]
    is_recent = last is not None and last > now - ONLINE_WITHIN
    url = reverse("admin:ingest_ingestbatch_changelist")
    return Card("Last batch", ago(last), url, GOOD if is_recent else WORTH_A_LOOK, "from any device")


def rejected_batches(user: Any, now: datetime) -> Card:
    count = RejectedBatch.objects.for_user(user).filter(received_at__gte=oldest_kept(now)).count()
    url = reverse("admin:ingest_rejectedbatch_changelist")
    return Card("Rejected batches", f"{count:,}", url, BAD if count else GOOD, "kept for staff, with the reason")


def refused_keys(now: datetime) -> Card:
    """For the whole site, because such a request belongs to no tenant; so only superusers see it."""
    counts = RefusedKeyCount.objects.filter(hour__gt=now - timedelta(days=1))
    requests = counts.aggregate(all=Sum("requests"))["all"] or 0
    return Card(
        "Requests without a valid key",
        f"{requests:,}",
        reverse("admin:devices_devicekey_changelist"),
        WORTH_A_LOOK if requests else GOOD,
        "in 24 hours",
    )


CARDS = {
    "devices.device": devices_offline,
    "alerts.alertgroup": new_groups,
    "ingest.rejectedbatch": rejected_batches,
    "devices.devicekey": expiring_keys,
    "ingest.ingestbatch": last_batch,
}
