import asyncio
import fcntl
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import unfold
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.management import create_contenttypes
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import OperationalError, connection
from django.db.models import QuerySet, Sum
from django.db.models.signals import post_migrate
from django.test import Client
from django.utils import timezone

from alerts.models import AlertGroup, SecurityAlert
from common.cancellation import keep_cancelling
from devices.authentication import known_keys
from devices.models import Device, DeviceKey, ProvisioningKey
from ingest.models import IngestBatch, IngestEvent, RejectedBatch
from ingestcloud.login import logins
from tenants.models import Tenant
from tenants.sign_ins import failures
from tests.support.alert_rows import alert_row
from tests.support.audit import emptying
from tests.support.browser import analyst, browser, make_analyst, open_page, page, uplink  # noqa: F401  fixtures
from tests.support.fake_site import Site
from tests.support.live import ROOT, Server
from tests.support.raw_requests import AlteredServer

counter = itertools.count(1)

# The markers of a test, by the fixtures that it uses; tests of outages and of real clients set theirs themselves.
SERVERS = ("start_server", "the_server", "altered_server", "the_forgetful_server")
MARKS = dict.fromkeys(SERVERS, "server") | {"browser": "browser"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in MARKS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKS[fixture])


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix, tmp_path_factory):
    """Make SQLite's test database a file, because other processes and threads must see it, as on PostgreSQL."""
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        settings.DATABASES["default"]["TEST"]["NAME"] = str(tmp_path_factory.mktemp("sqlite") / "test.sqlite3")


def pytest_configure() -> None:
    # Let WhiteNoise look for a file when it is asked for, not for all files whenever a test makes a client.
    settings.WHITENOISE_AUTOREFRESH = True
    # A test's loop is closed like a server's: a task that lost its cancellation must not keep it open.
    runners: Any = asyncio.runners
    cancel_all_tasks = runners._cancel_all_tasks

    def cancel_all_until_they_end(loop: asyncio.AbstractEventLoop) -> None:
        keep_cancelling(loop)
        cancel_all_tasks(loop)

    runners._cancel_all_tasks = cancel_all_until_they_end


@pytest.fixture(scope="session", autouse=True)
def static_files():
    """Collect the static files, which pages need as in production. That is slow, so only if some are newer."""
    collected = Path(settings.STATIC_ROOT, "staticfiles.json")
    sources = [Path(unfold.__file__), *ROOT.glob("*/static/**/*")]
    with Path(tempfile.gettempdir(), "ingestcloud-collectstatic").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers may run
        if not collected.exists() or any(file.stat().st_mtime > collected.stat().st_mtime for file in sources):
            call_command("collectstatic", "--noinput", verbosity=0)
            collected.touch()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    """Keep permissions when a test empties the tables: creating them again takes longer than most tests."""
    post_migrate.disconnect(create_contenttypes)
    post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
    introspection: Any = type(connection.introspection)  # the class: browser tests use another connection
    table_names = introspection.django_table_names
    kept = {ContentType._meta.db_table, Permission._meta.db_table}
    introspection.django_table_names = lambda self, **kwargs: set(table_names(self, **kwargs)) - kept
    operations: Any = type(connection.ops)
    operations.execute_sql_flush = patiently(emptying(operations.execute_sql_flush))
    yield
    if connection.vendor == "postgresql":
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(END_OTHER_SESSIONS)
        connection.close()


# A process that a test left behind may keep its connection for some seconds, and then the database cannot be dropped.
END_OTHER_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def patiently(empty_tables):
    """`empty_tables`, retried after a deadlock with a server that is still checking its sockets."""

    def again(*arguments):
        for _ in range(3):
            try:
                return empty_tables(*arguments)
            except OperationalError:
                time.sleep(0.1)
        return empty_tables(*arguments)

    return again


@pytest.fixture(scope="session")
def start_server(django_db_setup, tmp_path_factory):
    """Starts servers, and stops them at the end of the session."""
    servers = []

    def start(command: str = "uvicorn", **environment: str) -> Server:
        log_file: Path = tmp_path_factory.mktemp("server") / "log"
        servers.append(Server(log_file, command, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def the_server(start_server):
    return start_server()


@pytest.fixture
def server(the_server, transactional_db):
    """A running server. A test that makes it print a traceback fails."""
    yield from without_traceback(the_server)


def without_traceback(server: Server) -> Iterator[Server]:
    printed = len(server.log)
    yield server
    _, traceback, text = server.log[printed:].partition("Traceback")
    assert not traceback, text[:5000]


@pytest.fixture
def altered_server(transactional_db, tmp_path):
    """Starts servers that first run some code. A test that makes one print a traceback fails."""
    servers = []

    def start(alterations: str, **environment: str) -> Server:
        servers.append(AlteredServer(tmp_path / "log", alterations, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
        assert "Traceback" not in server.log


@pytest.fixture(scope="session")
def the_forgetful_server(django_db_setup, tmp_path_factory):
    alterations = "import ingestcloud.asgi, devices.authentication as a; a.KNOWN_SECONDS = 0.5"
    server = AlteredServer(tmp_path_factory.mktemp("server") / "log", alterations)
    yield server
    server.stop()


@pytest.fixture
def forgetful_server(the_forgetful_server, transactional_db):
    """A server that remembers a key, and with it the modules of its tenant, for half a second only."""
    yield from without_traceback(the_forgetful_server)


@pytest.fixture(autouse=True)
def forget_all():
    known_keys.clear()
    logins.clear()
    failures.clear()


@pytest.fixture
def make_tenant(db):
    def make(**fields) -> Tenant:
        slug = fields.pop("slug", f"tenant-{next(counter)}")
        return Tenant.objects.create(slug=slug, name=fields.pop("name", slug.title()), **fields)

    return make


@pytest.fixture
def tenant(make_tenant) -> Tenant:
    return make_tenant(backup_enabled=True)


@pytest.fixture
def make_key(make_tenant):
    """Creates a device with a device key, and returns (key, plaintext)."""

    def make(tenant: Tenant | None = None, **fields) -> tuple[DeviceKey, str]:
        device = Device.objects.create(tenant=tenant or make_tenant(), name=f"press-{next(counter)}")
        return DeviceKey.objects.issue(device, **fields)

    return make


@pytest.fixture
def device_key(make_key, tenant) -> DeviceKey:
    key, key.plaintext = make_key(tenant)
    return key


@pytest.fixture
def key(device_key) -> str:
    """The plaintext of a valid device key, of a device in `tenant`."""
    return device_key.plaintext


@pytest.fixture
def issue(tenant):
    """Creates a provisioning key, for `tenant` unless another is given, and returns (key, plaintext)."""

    def issue(**fields) -> tuple[ProvisioningKey, str]:
        return ProvisioningKey.objects.issue(fields.pop("tenant", tenant), "Delivery of May", **fields)

    return issue


@pytest.fixture
def log_in(db):
    """Logs in a user and returns the session cookie. `log_in(superuser=True)` sees every tenant."""

    def log_in(*tenants: Tenant, superuser: bool = False, user=None) -> str:
        if user is None:
            make = get_user_model().objects
            name = f"analyst-{next(counter)}"
            user = make.create_superuser(name) if superuser else make.create_user(name)
            user.tenants.set(tenants)
        client = Client()
        client.force_login(user)
        return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"

    return log_in


@pytest.fixture
def admin_user(db) -> User:
    """Like pytest-django's, but without a password, because hashing one takes longer than most of these tests."""
    return User.objects.create_superuser("admin")


@pytest.fixture
def staff(db):
    """Logs in a member of staff with only the permissions named."""

    def make(*permissions: str, tenants: tuple[Tenant, ...] = ()) -> Client:
        user = User.objects.create_user(f"staff-{User.objects.count()}", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        user.tenants.set(tenants)
        client = Client()
        client.force_login(user)
        return client

    return make


@pytest.fixture
def store(device_key):
    """Stores events of one batch directly in the database."""

    def store(count: int = 1, **fields) -> list[IngestEvent]:
        owner = {"tenant_id": device_key.device.tenant_id, "device_id": device_key.device_id}
        now = fields.pop("received_at", timezone.now())
        digest = IngestBatch.objects.count().to_bytes(32)
        batch = IngestBatch.objects.create(
            digest=digest, event_count=count, alert_count=0, byte_count=200 * count, received_at=now, **owner
        )
        values = owner | {"batch": batch, "kind": "log", "data": {"level": "info"}, "timestamp": now} | fields
        return IngestEvent.objects.bulk_create(IngestEvent(received_at=now, **values) for _ in range(count))

    return store


@pytest.fixture
def make_alert(device_key):
    def make(**fields) -> SecurityAlert:
        now = timezone.now()
        title = f"Port scan {AlertGroup.objects.count()}"  # each has a group of its own
        fields = {"title": title, "severity": "high", "tenant": device_key.device.tenant} | fields
        return alert_row(**{"device": device_key.device, "timestamp": now, "received_at": now} | fields)

    return make


@pytest.fixture
def kept(device_key):
    """The rejected batches of the device of `key`, once `times` refusals are kept, which is after the answer."""

    def kept(times: int, **fields) -> QuerySet[RejectedBatch]:
        rows = RejectedBatch.objects.filter(**(fields or {"device": device_key.device}))
        deadline = time.monotonic() + 10
        while (rows.aggregate(all=Sum("times"))["all"] or 0) < times:
            assert time.monotonic() < deadline, rows.values()
            time.sleep(0.02)
        return rows

    return kept


@pytest.fixture
def site():
    """A fake site with scripted answers."""
    site = Site()
    yield site
    site.stop()


other_site = site  # redirects may lead to it
