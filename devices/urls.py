from django.urls import path

from devices.registration import RegisterView

urlpatterns = [path("api/v1/devices/register", RegisterView.as_view(), name="register")]
