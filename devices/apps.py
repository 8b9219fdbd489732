from django.apps import AppConfig
from django.db.models.signals import post_migrate


class DevicesConfig(AppConfig):
    name = "devices"
    verbose_name = "Fleet"

    def ready(self) -> None:
        from devices.tenant_tables import grant_shared_tables

        post_migrate.connect(grant_shared_tables, sender=self)
