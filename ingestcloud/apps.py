from django.apps import AppConfig


class IngestCloudConfig(AppConfig):
    name = "ingestcloud"
    verbose_name = "IngestCloud"

    def ready(self) -> None:
        from ingestcloud import checks  # noqa: F401  registers the system checks
