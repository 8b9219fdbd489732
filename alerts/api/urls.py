"""The addresses of the API for people, under `/api/v1/`."""

from django.urls import path

from alerts.api.export import GroupExportView
from alerts.api.groups import GroupAlertsView, GroupChangesView, GroupListView, GroupView
from alerts.api.me import MeView
from alerts.api.saved_filters import SavedFilterListView, SavedFilterView
from alerts.api.summary import GroupSummaryView
from alerts.api.suppression import (
    SuppressedAlertsView,
    SuppressionEndView,
    SuppressionListView,
    SuppressionPreviewView,
)
from alerts.api.triage import TriageView, UndoView

urlpatterns = [
    path("me", MeView.as_view()),
    path("groups", GroupListView.as_view(), name="groups"),
    path("groups/summary", GroupSummaryView.as_view()),
    path("groups/export", GroupExportView.as_view(), name="export_groups"),
    path("groups/<int:pk>", GroupView.as_view(), name="group"),
    path("groups/<int:pk>/alerts", GroupAlertsView.as_view()),
    path("groups/<int:pk>/changes", GroupChangesView.as_view()),
    path("triage", TriageView.as_view()),
    path("undo", UndoView.as_view()),
    path("suppressions", SuppressionListView.as_view()),
    path("suppressions/preview", SuppressionPreviewView.as_view()),
    path("suppressions/<int:pk>/alerts", SuppressedAlertsView.as_view()),
    path("suppressions/<int:pk>/end", SuppressionEndView.as_view()),
    path("filters", SavedFilterListView.as_view()),
    path("filters/<int:pk>", SavedFilterView.as_view()),
]
