"""The lists of the staff admin."""

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks import environment
from benchmarks.environment import say

ROWS = 50
RUNS = 25
LISTS = (
    "devices_device", "devices_devicekey", "alerts_securityalert", "alerts_alertgroup", "ingest_ingestevent",
    "ingest_ingestbatch", "ingest_rejectedbatch", "tenants_tenant",
)  # fmt: skip


class Clock:
    """The CPU time of this thread in milliseconds, without what goes on inside a query."""

    def __init__(self) -> None:
        self._in_queries = 0.0

    def around_query(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        begin = time.thread_time()
        try:
            return execute(*arguments)
        finally:
            self._in_queries += time.thread_time() - begin

    def now(self) -> float:
        return (time.thread_time() - self._in_queries) * 1000


def staff_list_ms() -> list[float]:
    """The median of each list in milliseconds, for staff who hold every permission and see ROWS rows."""
    from django.db import connection, transaction
    from django.test import Client
    from django.urls import reverse

    environment.truncate()
    clock, medians = Clock(), []
    with transaction.atomic(), connection.execute_wrapper(clock.around_query):
        client = Client()
        client.force_login(fill())
        for name in LISTS:
            url = reverse(f"admin:{name}_changelist")
            times = [ask(client, url, clock) for _ in range(RUNS + 1)][1:]  # the first one compiles the templates
            medians.append(statistics.median(times))
            say(f"{name}: {medians[-1]:.0f} ms, at least {min(times):.0f}")
        transaction.set_rollback(True)
    return medians


def fill() -> Any:
    """ROWS tenants with a device each, and a row of that device in each list. Returns staff who see all of them."""
    from django.contrib.auth.models import Permission, User
    from django.utils import timezone

    from alerts.models import Severity, Status
    from devices.models import Device, DeviceKey
    from ingest.models import IngestBatch, IngestEvent, Kind, RejectedBatch
    from tenants.models import Tenant
    from tests.support.alert_rows import alert_row

    now = timezone.now()
    user = User.objects.create_user("staff-lists", is_staff=True)
    user.user_permissions.set(Permission.objects.all())
    for number in range(ROWS):
        tenant = Tenant.objects.create(slug=f"list-{number}", name=f"Tenant {number}", backup_enabled=True)
        tenant.members.add(user)
        device = Device.objects.create(tenant=tenant, name=f"press-{number}", last_seen_at=now, type="press")
        DeviceKey.objects.issue(device)
        owner = {"tenant": tenant, "device": device, "received_at": now}
        digest = number.to_bytes(32)
        batch = IngestBatch.objects.create(
            digest=digest, event_count=1, alert_count=1, byte_count=9, source="192.0.2.1", **owner
        )
        kind, severity, status = (list(choices)[number % 4] for choices in (Kind, Severity, Status))
        data = {"message": f"Hello from {device}"}
        IngestEvent.objects.create(batch=batch, kind=kind, timestamp=now, data=data, **owner)
        alert_row(status, timestamp=now, title=f"Scan {number}", severity=severity, source_ip="192.0.2.1", **owner)
        RejectedBatch.objects.create(
            status=400, code="invalid_events", detail="No.", digest=digest, body=b"[]", byte_count=2,
            first_received_at=now, **owner,
        )  # fmt: skip
    return user


def ask(client: Any, url: str, clock: Clock) -> float:
    begin = clock.now()
    response = client.get(url)
    took = clock.now() - begin
    shown = response.content.count(b'<tr class="data-row ')
    if shown != ROWS:
        raise SystemExit(f"{url} shows {shown} rows, not {ROWS}")
    return took
