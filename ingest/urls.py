from django.urls import path

from ingest.device_events import DeviceEventsView
from ingest.paths import INGEST_PATH
from ingest.views import IngestView

urlpatterns = [
    path("api/v1/devices/<int:pk>/events", DeviceEventsView.as_view()),
    path(INGEST_PATH[1:], IngestView.as_view(), name="ingest"),
]
