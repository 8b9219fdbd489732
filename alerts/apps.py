from django.apps import AppConfig
from django.db.backends.signals import connection_created

from alerts.addresses import add_function


class AlertsConfig(AppConfig):
    name = "alerts"
    verbose_name = "Security"

    def ready(self) -> None:
        connection_created.connect(add_function)
