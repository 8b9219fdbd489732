"""The filters of the list of groups: from the query of an address to the ids of groups."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone
from rest_framework import serializers

from alerts.addresses import network
from alerts.models import AlertGroup, Disposition, Severity, Status
from alerts.searching import Search
from tenants.api import validated
from tenants.isolation import bypass_isolation
from tenants.models import Tenant

INT64_MAX = 2**63 - 1
MAX_WORDS = 10
UNITS = {"m": "minutes", "h": "hours", "d": "days"}
WITHIN = r"^[0-9]{1,3}[mhd]\Z"
ANY = "any"


class NetworkField(serializers.CharField):
    """An address, or a network such as `10.0.0.0/8`."""

    def to_internal_value(self, data: Any) -> str:
        try:
            return network(super().to_internal_value(data))
        except ValueError as error:
            raise serializers.ValidationError("This is not an address or a network.", code="invalid") from error


class AssigneeField(serializers.CharField):
    """`me`, `none`, or the id of a user."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if text not in ("me", "none") and not (text.isascii() and text.isdecimal() and int(text[:20]) <= INT64_MAX):
            raise serializers.ValidationError("Use `me`, `none` or the id of a user.", code="invalid")
        return text


def any_of(field: serializers.Field, **kwargs: Any) -> serializers.ListField:
    """A parameter that may be repeated: any of its values will do."""
    return serializers.ListField(child=field, required=False, max_length=50, **kwargs)


class FilterSerializer(serializers.Serializer):
    """What a group must meet. Without `status` it must not be closed."""

    severity = any_of(serializers.ChoiceField(Severity.choices))
    status = any_of(serializers.ChoiceField([*Status.choices, (ANY, "Any")]))
    disposition = any_of(serializers.ChoiceField(Disposition.choices))
    assignee = any_of(AssigneeField())
    device = any_of(serializers.IntegerField(min_value=1, max_value=INT64_MAX))
    source = any_of(NetworkField(max_length=50))  # type: ignore[assignment]  # DRF's own has another use
    destination = any_of(NetworkField(max_length=50))
    address = any_of(NetworkField(max_length=50), help_text="Source or destination.")
    tenant = any_of(serializers.SlugField(max_length=64))
    q = any_of(serializers.CharField(max_length=500, allow_blank=True), help_text="Words that its title must have.")
    since = serializers.DateTimeField(required=False, help_text="Its last alert came at this time or later.")
    within = serializers.RegexField(
        WITHIN, required=False, help_text="Its last alert came in the last minutes, hours or days: `15m`, `24h`, `7d`."
    )
    until = serializers.DateTimeField(required=False, help_text="Its last alert came at this time or earlier.")
    suppressed = serializers.ChoiceField(
        ["yes"], required=False, help_text="It has suppressed alerts; also if it has no others."
    )

    def validate_q(self, value: list[str]) -> list[str]:
        words = " ".join(value).split()
        if len(words) > MAX_WORDS:
            raise serializers.ValidationError(f"At most {MAX_WORDS} words are searched for.", code="too_many_words")
        return words


@dataclass(frozen=True)
class GroupFilter:
    """Finds groups that `user` may see."""

    user: Any
    search: Search
    condition: Q  # all others
    tenant_slugs: list[str]

    @classmethod
    def of(cls, request: Any) -> "GroupFilter":
        """The filter in the query of `request`. Raises InvalidRequest."""
        given = validated(FilterSerializer, request.query_params)
        condition = condition_of(given, request.user)
        return cls(request.user, search_of(given), condition, given.get("tenant", []))

    def find(self, count: int, below: int = INT64_MAX) -> list[tuple[int, int]]:
        """The revisions and ids of the last `count` groups with a revision lower than `below`, the highest first.

        One tenant after the other, so that the groups of a quiet one are found without reading everybody's. Runs as
        the tables' owner, limited to the user's tenants: behind the policies PostgreSQL may not use an index for a
        search. What is shown is read again behind them, by id.
        """
        matches = AlertGroup.objects.filter(self.condition, self.search.condition, revision__lt=below)
        groups = matches.values_list("revision", "pk")
        found: set[tuple[int, int]] = set()
        tenant_ids = self.tenant_ids()
        with bypass_isolation():
            for tenant_id in [None] if tenant_ids is None else tenant_ids:
                rows = groups if tenant_id is None else groups.filter(tenant=tenant_id)
                if candidates := self.search.candidates(tenant_id):
                    found.update(rows.filter(pk__in=candidates.ids))
                    rows = rows.filter(pk__gt=candidates.after)
                found.update(rows.order_by("-revision")[:count])
        return sorted(found, reverse=True)[:count]

    def tenant_ids(self) -> list[int] | None:
        """The ids of the tenants to search, None for all."""
        if self.user.is_superuser and not self.tenant_slugs:
            return None
        tenants = Tenant.objects.for_user(self.user)
        if self.tenant_slugs:
            tenants = tenants.filter(slug__in=self.tenant_slugs)
        return list(tenants.values_list("pk", flat=True))


def condition_of(given: dict[str, Any], user: Any) -> Q:
    """The condition on a group, without those on its tenant, its title and its addresses."""
    condition = Q(suppressed_count__gt=0) if "suppressed" in given else Q(count__gt=0)
    statuses = given.get("status", [])
    if not statuses:
        condition &= ~Q(status=Status.CLOSED)
    elif ANY not in statuses:
        condition &= Q(status__in=statuses)
    for name in ("severity", "disposition", "device"):
        if given.get(name):
            condition &= Q(**{f"{name}__in": given[name]})
    condition &= _any(_assigned(who, user) for who in given.get("assignee", []))
    if since := beginning_of(given):
        condition &= Q(last_seen_at__gte=since)
    if until := given.get("until"):
        condition &= Q(last_seen_at__lte=until)
    return condition


def beginning_of(given: dict[str, Any]) -> datetime | None:
    """The time that the last alert must not be before."""
    times = [given["since"]] if "since" in given else []
    if within := given.get("within"):
        times.append(timezone.now() - timedelta(**{UNITS[within[-1]]: int(within[:-1])}))
    return max(times, default=None)


def search_of(given: dict[str, Any]) -> Search:
    """The conditions on the title and the addresses of a group."""
    addresses = _any(Q(source_ip__within=value) | Q(destination_ip__within=value) for value in given.get("address", []))
    for name in ("source", "destination"):
        addresses &= _any(Q(**{f"{name}_ip__within": value}) for value in given.get(name, []))
    return Search(addresses, given.get("q", []))


def _assigned(who: str, user: Any) -> Q:
    if who == "none":
        return Q(assignee=None)
    return Q(assignee=user.pk if who == "me" else int(who))


def _any(conditions: Any) -> Q:
    together = Q()
    for condition in conditions:
        together |= condition
    return together
