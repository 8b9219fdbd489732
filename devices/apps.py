from django.apps import AppConfig
from django.db.models.signals import post_migrate


class DevicesConfig(AppConfig):
    name = "devices"
    verbose_name = "Fleet"

    def ready(self) -> None:
        from devices.isolation import grant_tables

        post_migrate.connect(grant_tables, sender=self)
