"""Combinations of settings that can't work, reported before the server starts."""

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

LEAST = {
    "INGEST_MAX_EVENTS": 1,
    "INGEST_MAX_BYTES": 1,
    "INGEST_BACKLOG_BYTES": 1,
    "INGEST_BODY_SECONDS": 1,
    "INGEST_EVENTS_PER_SECOND": 0,
    "INGEST_BURST": 1,
    "REJECTED_MAX_BYTES": 0,
    "REJECTED_PER_DEVICE": 1,
    "REJECTED_HOURS": 1,
}


@register()
def processes_need_redis(app_configs: object, **kwargs: object) -> list[CheckMessage]:
    if settings.WEB_CONCURRENCY > 1 and not settings.REDIS_URL:
        return [
            Error(
                "Several server processes without Redis: an alert accepted by one would not reach pages of another.",
                hint="Set REDIS_URL, or WEB_CONCURRENCY=1.",
                id="ingestcloud.E001",
            )
        ]
    return []


@register()
def limits_are_positive(app_configs: object, **kwargs: object) -> list[CheckMessage]:
    return [
        Error(f"{name} must be at least {least}.", id="ingestcloud.E002")
        for name, least in LEAST.items()
        if getattr(settings, name) < least
    ]


@register(deploy=True)
def demo_is_not_deployed(app_configs: object, **kwargs: object) -> list[CheckMessage]:
    if settings.DEMO_DEVICE_KEY or settings.DEMO_ADMIN_PASSWORD:
        return [
            Warning(
                "The demo's key and login are set.",
                hint="The .env that `make run` wrote is not for production: remove it and set your own variables.",
                id="ingestcloud.W002",
            )
        ]
    return []


@register(deploy=True)
def sqlite_has_one_writer(app_configs: object, **kwargs: object) -> list[CheckMessage]:
    if settings.WEB_CONCURRENCY > 1 and settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        return [
            Warning(
                "Several server processes write to one SQLite file, one at a time.",
                hint="Set DATABASE_URL to a PostgreSQL database.",
                id="ingestcloud.W001",
            )
        ]
    return []
