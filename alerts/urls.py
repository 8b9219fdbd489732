from django.urls import path

from alerts.views import console

urlpatterns = [path("", console, name="console")]
