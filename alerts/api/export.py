"""The groups that pass a filter, as a file."""

import json
from collections import Counter
from typing import cast

from django.http import HttpResponse
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from alerts.api.filters import GroupFilter
from alerts.api.groups import represented
from common.spreadsheets import as_csv
from tenants import audit
from tenants.api import PersonView, validated
from tenants.models import Tenant, Verb

MAX_GROUPS = 10_000
MAX_QUERY = 2000  # characters
CUT_HEADER = "X-Export-Cut"  # "yes" if there are more groups than MAX_GROUPS
COLUMNS = (
    "id", "tenant", "title", "severity", "status", "disposition", "assignee", "source_ip", "destination_ip", "device",
    "count", "suppressed_count", "first_seen_at", "last_seen_at", "status_changed_at", "status_changed_by",
)  # fmt: skip


class ExportSerializer(serializers.Serializer):
    format = serializers.ChoiceField(["csv", "json"])


class GroupExportView(PersonView):
    """The last changed MAX_GROUPS groups that pass a filter, as CSV or JSON."""

    def get(self, request: Request) -> HttpResponse:
        kind = validated(ExportSerializer, request.query_params)["format"]
        found = GroupFilter.of(request).find(MAX_GROUPS + 1)
        groups = represented([pk for _, pk in found[:MAX_GROUPS]])
        if kind == "csv":
            rows = ([cell(group[column]) for column in COLUMNS] for group in groups)
            response = HttpResponse(as_csv(COLUMNS, rows), content_type="text/csv; charset=utf-8")
        else:
            response = HttpResponse(json.dumps(groups), content_type="application/json")
        record_export(request, groups)
        name = f"alert-groups-{timezone.now():%Y%m%dT%H%M%SZ}.{kind}"
        response["Content-Disposition"] = f'attachment; filename="{name}"'
        response[CUT_HEADER] = "yes" if len(found) > MAX_GROUPS else "no"
        return response


def cell(value: object) -> object:
    return value["name"] if isinstance(value, dict) else value  # a tenant, a person or a device


def record_export(request: Request, groups: list[dict[str, object]]) -> None:
    """Record for each tenant that groups of it were exported: its staff may see that, and nothing of the others."""
    counts = Counter(cast("dict[str, str]", group["tenant"])["slug"] for group in groups)
    query = request.query_params.urlencode()[:MAX_QUERY]
    audit.record_all(
        audit.entry(Verb.ALERTS_EXPORTED, tenant, after={"groups": counts[tenant.slug], "query": query})
        for tenant in Tenant.objects.filter(slug__in=counts)
    )
