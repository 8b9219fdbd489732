from django.urls import path

from ingest.paths import INGEST_PATH
from ingest.views import IngestView

urlpatterns = [path(INGEST_PATH[1:], IngestView.as_view(), name="ingest")]
