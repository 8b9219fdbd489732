from django.urls import path

from devices.paths import REGISTER_PATH
from devices.registration import RegisterView

urlpatterns = [path(REGISTER_PATH[1:], RegisterView.as_view(), name="register")]
