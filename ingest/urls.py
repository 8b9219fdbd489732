from django.urls import path

from ingest.views import IngestView

urlpatterns = [path("v1/ingest", IngestView.as_view(), name="ingest")]
