"""What people and their programs send and get, with the session of the pages."""

from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.views import APIView

from alerts.api.export import ExportSerializer, GroupExportView
from alerts.api.filters import FilterSerializer
from alerts.api.groups import GroupAlertsView, GroupChangesView, GroupListView, GroupView
from alerts.api.me import MeView
from alerts.api.pagination import PageSerializer
from alerts.api.saved_filters import SavedFilterListView, SavedFilterSerializer, SavedFilterView
from alerts.api.summary import GroupSummaryView
from alerts.api.suppression import (
    ConditionsSerializer,
    SuppressedAlertsView,
    SuppressionEndView,
    SuppressionFilterSerializer,
    SuppressionListView,
    SuppressionPreviewView,
    SuppressionSerializer,
)
from alerts.api.triage import TriageSerializer, TriageView, UndoSerializer, UndoView
from ingest.device_events import AroundSerializer, DeviceEventsView
from ingestcloud.openapi import people_shapes as shapes
from ingestcloud.openapi.shared import problems
from tenants.api import SessionLogin


class SessionScheme(OpenApiAuthenticationExtension):
    target_class = SessionLogin
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME}


SECURITY = problems(
    _401="There is no session, or it has ended.",
    _503="The database is not responding, or this took too long. Try again later.",
)
BAD_QUERY = problems(_400="A parameter is not valid; `errors` names it.")
BAD_BODY = problems(
    _400="The body is not valid; `errors` names the fields.",
    _403="The request has no CSRF token of the session's pages in `X-CSRFToken`.",
    _413="The body is too large.",
    _415="The content type is not supported.",
)
UNKNOWN = problems(_404="There is no such row, or it belongs to a tenant that the user is no member of.")
CONFLICT = problems(_409="It contradicts what is stored; `code` says how.")
FILE = {(200, "text/csv"): OpenApiTypes.STR, (200, "application/json"): shapes.GroupSerializer(many=True)}


def describe(view: type[APIView], method: str, name: str, summary: str, responses: dict, **kwargs: Any) -> None:
    schema = extend_schema(operation_id=name, summary=summary, responses=responses | SECURITY, **kwargs)
    extend_schema_view(**{method: schema})(view)


QUERY = [FilterSerializer, PageSerializer]
describe(
    GroupListView, "get", "listGroups", "List groups of alerts, the last changed first",
    {200: shapes.GroupPageSerializer} | BAD_QUERY, parameters=QUERY,
)  # fmt: skip
describe(GroupView, "get", "getGroup", "Get one group", {200: shapes.GroupDetailSerializer} | UNKNOWN)
describe(
    GroupAlertsView, "get", "listAlertsOfGroup", "List the alerts of a group, the newest first",
    {200: shapes.AlertPageSerializer} | BAD_QUERY | UNKNOWN, parameters=[PageSerializer],
)  # fmt: skip
describe(
    GroupChangesView, "get", "listChangesOfGroup", "List what people did about a group, the newest first",
    {200: shapes.ChangePageSerializer} | BAD_QUERY | UNKNOWN, parameters=[PageSerializer],
)  # fmt: skip
describe(
    GroupSummaryView, "get", "summarizeGroups", "Count groups, and show when and where their alerts came from",
    {200: shapes.SummarySerializer} | BAD_QUERY, parameters=[FilterSerializer],
)  # fmt: skip
describe(
    GroupExportView, "get", "exportGroups", "Get groups as a file", FILE | BAD_QUERY,
    parameters=[FilterSerializer, ExportSerializer],
)  # fmt: skip
describe(
    TriageView, "post", "triage", "Change the status, disposition or assignee of groups, or add a note",
    {200: shapes.OutcomeSerializer} | BAD_BODY | CONFLICT, request={"application/json": TriageSerializer},
)  # fmt: skip
describe(
    UndoView, "post", "undo", "Undo an operation of one's own",
    {200: shapes.OutcomeSerializer} | BAD_BODY | CONFLICT, request={"application/json": UndoSerializer},
)  # fmt: skip
FORBIDDEN = problems(_403="The user only looks at this tenant, or the request has no CSRF token in `X-CSRFToken`.")
describe(
    SuppressionListView, "get", "listSuppressions", "List the rules that suppress alerts, the newest first",
    {200: shapes.SuppressionPageSerializer} | BAD_QUERY, parameters=[SuppressionFilterSerializer, PageSerializer],
)  # fmt: skip
describe(
    SuppressionListView, "post", "suppress", "Suppress alerts until an end",
    {201: shapes.SuppressionRuleSerializer} | BAD_BODY | FORBIDDEN | CONFLICT,
    request={"application/json": SuppressionSerializer},
)  # fmt: skip
describe(
    SuppressionPreviewView, "post", "previewSuppression", "What a rule would have suppressed of the last day's alerts",
    {200: shapes.SuppressionPreviewSerializer} | BAD_BODY | FORBIDDEN,
    request={"application/json": ConditionsSerializer},
)  # fmt: skip
describe(
    SuppressedAlertsView, "get", "listSuppressedAlerts", "List what a rule has suppressed, the newest first",
    {200: shapes.AlertPageSerializer} | BAD_QUERY | UNKNOWN, parameters=[PageSerializer],
)  # fmt: skip
describe(
    SuppressionEndView, "post", "endSuppression", "End a rule now",
    {200: shapes.SuppressionRuleSerializer} | UNKNOWN | FORBIDDEN, request=None,
)  # fmt: skip
describe(SavedFilterListView, "get", "listFilters", "List one's saved filters", {200: shapes.SavedFiltersSerializer})
describe(
    SavedFilterListView, "post", "saveFilter", "Save a filter under a name",
    {201: SavedFilterSerializer} | BAD_BODY | CONFLICT, request={"application/json": SavedFilterSerializer},
)  # fmt: skip
describe(
    SavedFilterView, "put", "changeFilter", "Change a saved filter",
    {200: SavedFilterSerializer} | BAD_BODY | UNKNOWN | CONFLICT, request={"application/json": SavedFilterSerializer},
)  # fmt: skip
describe(
    SavedFilterView, "delete", "deleteFilter", "Delete a saved filter",
    {204: None} | UNKNOWN | problems(_403="The request has no CSRF token of the session's pages in `X-CSRFToken`."),
)  # fmt: skip
describe(MeView, "get", "me", "Who is logged in, and what they may do", {200: shapes.MeSerializer})
describe(
    DeviceEventsView, "get", "listEventsOfDevice", "List what a device sent around a moment",
    {200: shapes.EventsSerializer} | BAD_QUERY | UNKNOWN, parameters=[AroundSerializer],
)  # fmt: skip
