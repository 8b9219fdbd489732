"""Rules that suppress alerts: which there are, making one, what it would have hidden, and ending it."""

from datetime import datetime, timedelta
from typing import Any, cast

from django.db.models import Count, QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from rest_framework import serializers, status
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.api.filters import INT64_MAX, NetworkField
from alerts.api.groups import represented
from alerts.api.pagination import page_by_id
from alerts.models import SecurityAlert, Severity, SuppressionRule
from alerts.order import take_turn
from alerts.representation import represent_evidence
from alerts.suppression import condition_of
from common.id_order import RECEIVED_SLACK, first_id, next_id
from common.problems import Conflict
from devices.models import Device
from tenants import audit
from tenants.api import InvalidRequest, PersonView, validated
from tenants.isolation import bypass_isolation
from tenants.models import Tenant, Verb

LONGEST = timedelta(days=30)
MAX_RULES = 100  # in force for a tenant: each is compared with each of its alerts
MAX_COUNTED = 10_000  # alerts that a rule suppressed
PREVIEW_SPAN = timedelta(days=1)
MAX_PREVIEWED = 100_000  # alerts of the tenant: the newest of them
MAX_EXAMPLES = 5
CONDITIONS = ("title", "source", "destination", "device")


class ConditionsSerializer(serializers.Serializer):
    """What an alert must meet. What is absent or empty is met by any alert; one condition must be given."""

    tenant = serializers.SlugField(max_length=64)
    title = serializers.CharField(max_length=1000, required=False, allow_blank=True, trim_whitespace=False)
    title_match = serializers.ChoiceField(
        SuppressionRule.Match.choices, required=False, help_text="Both respect case. `equals` if absent."
    )
    source = NetworkField(max_length=50, required=False)  # type: ignore[assignment]  # DRF's own has another use
    destination = NetworkField(max_length=50, required=False)
    device = serializers.IntegerField(min_value=1, max_value=INT64_MAX, required=False)
    worst_severity = serializers.ChoiceField(Severity.choices, help_text="Worse alerts are never suppressed.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not any(attrs.get(name) for name in CONDITIONS):
            raise serializers.ValidationError(f"Give one of {', '.join(CONDITIONS)}.", code="required")
        return attrs


class SuppressionSerializer(ConditionsSerializer):
    reason = serializers.CharField(max_length=1000)
    ends_at = serializers.DateTimeField(help_text="At most 30 days from now.")

    def validate_ends_at(self, value: datetime) -> datetime:
        now = timezone.now()
        if not now < value <= now + LONGEST:
            raise serializers.ValidationError("This must be in the future, and within 30 days.", code="invalid")
        return value


class SuppressionFilterSerializer(serializers.Serializer):
    state = serializers.ChoiceField(["in_force", "ended"], required=False, default="in_force")


class SuppressionListView(PersonView):
    """The rules of the user's tenants, the newest first."""

    def get(self, request: Request) -> Response:
        state = validated(SuppressionFilterSerializer, request.query_params)["state"]
        now = timezone.now()
        rules = SuppressionRule.objects.for_user(request.user).select_related("tenant", "device")
        rules = rules.in_force(now) if state == "in_force" else rules.filter(ends_at__lte=now)
        return Response(page_by_id(request, rules, represent) | {"now": now.isoformat()})

    def post(self, request: Request) -> Response:
        """Make a rule. Raises Conflict if the tenant has one that does the same and ends no earlier, or too many.

        One that ends later is how a rule is renewed: the first goes on counting until it ends.
        """
        given = validated(SuppressionSerializer, request.data)
        rule = rule_of(given, request.user)
        take_turn()  # of two requests at the same time, the second finds the rule of the first
        in_force = SuppressionRule.objects.in_force(rule.created_at).filter(tenant=rule.tenant)
        if same := in_force.filter(**conditions_in(rule), ends_at__gte=rule.ends_at).first():
            raise Conflict(
                "already_suppressed", f"A rule of {same.created_by_name} does the same, and ends no earlier."
            )
        if in_force.count() >= MAX_RULES:
            raise Conflict("too_many_rules", f"The tenant has {MAX_RULES} rules in force. End one first.")
        rule.save()
        return Response(represent(rule), status=status.HTTP_201_CREATED)


class SuppressionPreviewView(PersonView):
    """What a rule would have suppressed of the last day's alerts."""

    def post(self, request: Request) -> Response:
        rule = rule_of(validated(ConditionsSerializer, request.data), request.user)
        since = rule.created_at - PREVIEW_SPAN
        first, is_exact = previewed_ids(rule.tenant_id, since)
        shown = SecurityAlert.objects.filter(pk__gte=first, received_at__gte=since, suppressed_by=None)
        alerts = shown.filter(condition_of(rule))
        counts = alerts.order_by().values_list("group").annotate(alerts=Count("pk")).order_by("-alerts", "-group")
        found = list(counts)
        examples = dict(found[:MAX_EXAMPLES])
        return Response(
            {
                "since": since.isoformat(),
                "alerts": sum(count for _, count in found),
                "groups": len(found),
                "is_exact": is_exact,
                "examples": [{"group": each, "alerts": examples[each["id"]]} for each in represented(list(examples))],
            }
        )


class SuppressedAlertsView(PersonView):
    """What a rule has suppressed, the newest first."""

    def get(self, request: Request, pk: int) -> Response:
        get_object_or_404(SuppressionRule.objects.for_user(request.user), pk=pk)
        alerts = SecurityAlert.objects.filter(suppressed_by=pk).select_related("device")
        return Response(page_by_id(request, alerts, represent_evidence))


class SuppressionEndView(PersonView):
    """Ends a rule now. One that has ended stays as it is."""

    def post(self, request: Request, pk: int) -> Response:
        rules = SuppressionRule.objects.select_related("tenant", "device")
        rule = get_object_or_404(rules.for_user(request.user), pk=pk)
        if not SuppressionRule.objects.for_analyst(request.user).filter(pk=pk).exists():
            raise PermissionDenied("You may only look at this tenant's alerts.")
        now = timezone.now()
        name = request.user.get_username()
        before = {"ends_at": rule.ends_at}
        if SuppressionRule.objects.in_force(now).filter(pk=pk).update(ends_at=now, ended_by_name=name):
            rule.ends_at, rule.ended_by_name = now, name
            audit.record(Verb.SUPPRESSION_RULE_ENDED, rule, before=before, after={"ends_at": now})
        return Response(represent(rule))


def rule_of(given: dict[str, Any], user: Any) -> SuppressionRule:
    """A new rule, not saved. Raises InvalidRequest, and PermissionDenied for those who only look at the tenant."""
    tenant = Tenant.objects.for_user(user).filter(slug=given["tenant"]).first()
    if tenant is None:
        raise InvalidRequest({"tenant": [serializers.ErrorDetail("There is no such tenant.", "not_found")]})
    if not Tenant.objects.for_analyst(user).filter(pk=tenant.pk).exists():
        raise PermissionDenied("You may only look at this tenant's alerts.")
    device = None
    if "device" in given:
        device = Device.objects.filter(tenant=tenant, pk=given["device"]).first()
        if device is None:
            raise InvalidRequest({"device": [serializers.ErrorDetail("The tenant has no such device.", "not_found")]})
    now = timezone.now()
    return SuppressionRule(
        tenant=tenant,
        title=given.get("title", ""),
        title_match=given.get("title_match", SuppressionRule.Match.EQUALS),
        source=given.get("source", ""),
        destination=given.get("destination", ""),
        device=device,
        worst_severity=given["worst_severity"],
        reason=given.get("reason", ""),
        created_at=now,
        created_by_id=cast("int", user.pk),
        created_by_name=user.get_username(),
        ends_at=given.get("ends_at", now),
    )


def conditions_in(rule: SuppressionRule) -> dict[str, Any]:
    names = ("title", "title_match", "source", "destination", "device", "worst_severity")
    return {name: getattr(rule, name) for name in names}


def previewed_ids(tenant_id: int, since: datetime) -> tuple[int, bool]:
    """The first id of the tenant's alerts since then, or of its MAX_PREVIEWED newest; and whether it is the former."""
    with bypass_isolation():  # everybody's ids lead to the time
        everyones = SecurityAlert.objects.all()
        first = first_id(everyones, "received_at", since - RECEIVED_SLACK, next_id(everyones))
        newest: QuerySet = SecurityAlert.objects.filter(tenant=tenant_id).order_by("-pk").values_list("pk", flat=True)
        older = next(iter(newest[MAX_PREVIEWED : MAX_PREVIEWED + 1]), 0)
    return max(first, older + 1), older < first


def represent(rule: SuppressionRule) -> dict[str, object]:
    """`rule` as JSON-ready values, with what it has suppressed so far."""
    suppressed = SecurityAlert.objects.filter(suppressed_by=rule.pk).order_by("-pk")
    count = len(suppressed.values_list("pk")[: MAX_COUNTED + 1])
    last = suppressed.values_list("received_at", flat=True).first()
    return {
        "id": rule.pk,
        "tenant": {"slug": rule.tenant.slug, "name": rule.tenant.name},
        "title": rule.title,
        "title_match": rule.title_match,
        "source": rule.source or None,
        "destination": rule.destination or None,
        "device": {"id": rule.device_id, "name": rule.device.name if rule.device else ""} if rule.device_id else None,
        "worst_severity": rule.worst_severity,
        "reason": rule.reason,
        "created_at": rule.created_at.isoformat(),
        "created_by": rule.created_by_name,
        "ends_at": rule.ends_at.isoformat(),
        "ended_by": rule.ended_by_name or None,
        "suppressed": {
            "alerts": min(count, MAX_COUNTED),
            "is_exact": count <= MAX_COUNTED,
            "last_at": last.isoformat() if last else None,
        },
    }
