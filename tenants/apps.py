from django.apps import AppConfig
from django.db.models.signals import post_migrate


class TenantsConfig(AppConfig):
    name = "tenants"
    verbose_name = "Tenants"

    def ready(self) -> None:
        from tenants.tables import grant_shared_tables

        post_migrate.connect(grant_shared_tables, sender=self)
