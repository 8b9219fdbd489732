from django.apps import AppConfig
from django.db.backends.signals import connection_created

from tenants.isolation import watch_connection


class TenantsConfig(AppConfig):
    name = "tenants"
    verbose_name = "Fleet"  # its heading in the admin, which it shares with the devices

    def ready(self) -> None:
        from tenants import watched  # noqa: F401  connects the signals

        connection_created.connect(watch_connection)
