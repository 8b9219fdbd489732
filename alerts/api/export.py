"""The groups that pass a filter, as a file."""

import csv
import io
import json

from django.http import HttpResponse
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from alerts.api.filters import GroupFilter
from alerts.api.groups import represented
from tenants.api import PersonView, validated

MAX_GROUPS = 10_000
CUT_HEADER = "X-Export-Cut"  # "yes" if there are more groups than MAX_GROUPS
COLUMNS = (
    "id", "tenant", "title", "severity", "status", "disposition", "assignee", "source_ip", "destination_ip", "device",
    "count", "suppressed_count", "first_seen_at", "last_seen_at", "status_changed_at", "status_changed_by",
)  # fmt: skip
# A spreadsheet takes text that begins like this for a formula. https://owasp.org/www-community/attacks/CSV_Injection
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class ExportSerializer(serializers.Serializer):
    format = serializers.ChoiceField(["csv", "json"])


class GroupExportView(PersonView):
    """The last changed MAX_GROUPS groups that pass a filter, as CSV or JSON."""

    def get(self, request: Request) -> HttpResponse:
        kind = validated(ExportSerializer, request.query_params)["format"]
        found = GroupFilter.of(request).find(MAX_GROUPS + 1)
        groups = represented([pk for _, pk in found[:MAX_GROUPS]])
        if kind == "csv":
            response = HttpResponse(as_csv(groups), content_type="text/csv; charset=utf-8")
        else:
            response = HttpResponse(json.dumps(groups), content_type="application/json")
        name = f"alert-groups-{timezone.now():%Y%m%dT%H%M%SZ}.{kind}"
        response["Content-Disposition"] = f'attachment; filename="{name}"'
        response[CUT_HEADER] = "yes" if len(found) > MAX_GROUPS else "no"
        return response


def as_csv(groups: list[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for group in groups:
        writer.writerow(cell(group[column]) for column in COLUMNS)
    return text.getvalue()


def cell(value: object) -> object:
    """A value as a spreadsheet may read it: nothing that a device sent is a formula."""
    if isinstance(value, dict):  # a tenant, a person or a device
        value = value["name"]
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return value
