from django.apps import AppConfig, apps


class IngestCloudConfig(AppConfig):
    name = "ingestcloud"
    verbose_name = "IngestCloud"

    def ready(self) -> None:
        from ingestcloud import checks  # noqa: F401  registers the system checks

        apps.get_app_config("auth").verbose_name = "Access"  # its heading in the admin, as in the sidebar
