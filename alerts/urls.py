from django.urls import path

from alerts.views import live_alerts

urlpatterns = [path("", live_alerts, name="live_alerts")]
