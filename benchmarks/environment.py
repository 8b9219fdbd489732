"""The environment of every benchmark: real servers, empty tables, sixteen devices of four tenants."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import urlsplit

from tests.support import servers

TABLES = "ingest_events, ingest_batches, security_alerts, alert_groups, alert_group_search"
TENANTS = ("bench-0", "bench-1", "bench-2", "bench-3")
UVICORN = ["uvicorn", "--no-access-log", "--log-level", "warning"]


def prepare() -> None:
    """Start PostgreSQL and Redis unless the environment names some, and migrate."""
    import django

    servers.complete_environment()
    os.environ["WORKER"] = "true"
    os.environ["DJANGO_SETTINGS_MODULE"] = "ingestcloud.settings"
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def make_keys(slugs: Sequence[str] = TENANTS) -> list[str]:
    """The keys of sixteen devices, of these tenants in turn."""
    from devices.models import Device, DeviceKey, Tenant

    keys = []
    for number in range(16):
        tenant, _ = Tenant.objects.get_or_create(slug=slugs[number % len(slugs)], defaults={"backup_enabled": True})
        device, _ = Device.objects.get_or_create(tenant=tenant, name=f"bench-{number}")
        keys.append(DeviceKey.objects.issue(device)[1])
    return keys


def log_in(*slugs: str, **fields: bool) -> str:
    """The session cookie of a new analyst of these tenants, or of staff with every permission (`is_staff=True`)."""
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.contrib.auth.models import Permission
    from django.test import Client

    from devices.models import Tenant

    users = get_user_model().objects
    user = users.create_user(f"analyst-{users.count()}", **fields)
    user.user_permissions.set(Permission.objects.all())
    user.tenants.set(Tenant.objects.filter(slug__in=slugs))
    client = Client()
    client.force_login(user)
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


def make_rules(count: int) -> None:
    """Put as many rules in force for each tenant, and no others. None suppresses an alert of the benchmarks."""
    from django.utils import timezone

    from alerts.models import SuppressionRule
    from devices.models import Tenant

    now = timezone.now()
    SuppressionRule.objects.all().delete()
    SuppressionRule.objects.bulk_create(
        SuppressionRule(
            tenant=tenant, title=f"scan of host {number}", title_match="contains", source=f"192.168.{number}.0/24",
            worst_severity="critical", reason="", created_at=now, created_by_id=0, ends_at=now + timedelta(days=1),
        )
        for tenant in Tenant.objects.all()
        for number in range(count)
    )  # fmt: skip


def truncate() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {TABLES}")
        cursor.execute("CHECKPOINT")


@contextmanager
def copy_of_database() -> Iterator[str]:
    """Yields the URL of a copy of this database, on the same server."""
    import psycopg
    from django.db import connection

    url = urlsplit(os.environ["DATABASE_URL"])
    name = connection.settings_dict["NAME"]
    connection.close()
    connection.close_pool()  # no one may be connected to the database that is copied
    with psycopg.connect(url._replace(path="/template1").geturl(), autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}_copy" TEMPLATE "{name}"')
    try:
        yield url._replace(path=f"/{name}_copy").geturl()
    finally:
        with psycopg.connect(url.geturl(), autocommit=True) as server:
            server.execute(f'DROP DATABASE "{name}_copy" WITH (FORCE)')


class Serving:
    """A running server: its port and process id."""

    def __init__(self, port: int, pid: int) -> None:
        self.port, self.pid = port, pid


@contextmanager
def serving(**environment: str) -> Iterator[Serving]:
    """The server as `make serve` runs it, in one process."""
    with _running(["ingestcloud.server", "--log-level=warning"], environment) as server:
        yield server


@contextmanager
def serving_other(application: str) -> Iterator[Serving]:
    """Another application under uvicorn."""
    with _running([*UVICORN, application, "--port"], {}) as server:
        yield server


@contextmanager
def serving_plain() -> Iterator[Serving]:
    """The plain way under daphne."""
    environment = {"DJANGO_SETTINGS_MODULE": "benchmarks.plain_settings"}
    with _running(["daphne", "-v", "0", "benchmarks.plain_app:application", "-p"], environment) as server:
        yield server


@contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[Serving]:
    from tests.support.live import free_port

    port = free_port()
    if command[-1] in ("-p", "--port"):
        command = [*command, str(port)]
    environment = os.environ | environment | {"PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", *command], env=environment)
    try:
        _wait(port)
        yield Serving(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait(port: int) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the server does not answer")


@contextmanager
def pages(server: Serving, slugs: Sequence[str]) -> Iterator[None]:
    """While this runs, one page of each tenant is open and reads its frames."""
    cookies = [log_in(slug) for slug in slugs]
    command = [sys.executable, "-m", "benchmarks.sockets", str(server.port), json.dumps(cookies)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()  # they are open
        yield
        if process.poll() is not None:
            raise SystemExit("the pages have disconnected")
    finally:
        process.kill()
        process.wait()


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
