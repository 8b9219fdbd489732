from django.apps import AppConfig
from django.core.handlers.asgi import ASGIHandler


class IngestCloudConfig(AppConfig):
    name = "ingestcloud"
    verbose_name = "IngestCloud"

    def ready(self) -> None:
        from common.requests import Request
        from ingestcloud import checks  # noqa: F401  registers the system checks

        ASGIHandler.request_class = Request
