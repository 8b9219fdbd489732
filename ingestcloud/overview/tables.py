"""Tables below the charts: the newest alerts, who sends most, and what the worker does."""

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from django.contrib import admin
from django.db.models import Sum
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils import timezone

from alerts.admin import SecurityAlertAdmin
from alerts.models import SecurityAlert
from ingestcloud.admin_theme import is_superuser, may_look_at
from ingestcloud.overview.charts import MINUTE, chosen_period
from ingestcloud.tasks import TASKS
from insights.models import LastRun, TenantHour, TenantMinute
from insights.worker import late
from tenants.admin.display import ago, badge, link_to
from tenants.isolation import bypass_isolation
from tenants.models import Tenant

NEWEST_ALERTS = 8
TOP_TENANTS = 8
TASK_COLOURS = {"fine": "success", "running": "info", "late": "danger", "failed": "danger"}


class Table(NamedTuple):
    title: str
    headers: list[str]
    rows: list[list[Any]]

    @property
    def table(self) -> dict[str, Any]:
        """As unfold's component takes it."""
        return {"headers": self.headers, "rows": self.rows}


def shown_to(request: HttpRequest) -> Iterator[Table]:
    if may_look_at("alerts", "securityalert")(request):
        yield newest_alerts(request)
    if may_look_at("tenants", "tenant")(request) and may_look_at("ingest", "ingestbatch")(request):
        yield top_tenants(request)
    if is_superuser(request):
        yield worker()


def newest_alerts(request: HttpRequest) -> Table:
    """With columns from the list of alerts."""
    pages = cast(SecurityAlertAdmin, admin.site.get_model_admin(SecurityAlert))
    columns = (pages.severity_label, pages.status_label, link_to, pages.device_link, pages.received)
    newest = SecurityAlert.objects.newest_of(request.user, NEWEST_ALERTS).values("pk")
    alerts = pages.get_queryset(request).filter(pk__in=newest).order_by("-pk")
    rows = [[column(alert) for column in columns] for alert in alerts]
    return Table("Newest alerts", ["severity", "status", "title", "device", "received"], rows)


def top_tenants(request: HttpRequest) -> Table:
    """Those that sent most events in the period of the charts."""
    period = chosen_period(request)
    model = TenantMinute if period.step == MINUTE else TenantHour
    rows = model.objects.for_user(request.user).filter(start__gte=period.starts(timezone.now())[0])
    top = rows.order_by().values("tenant_id").annotate(events=Sum("events"), bytes=Sum("bytes")).order_by("-events")
    found = list(top[:TOP_TENANTS])
    tenants = Tenant.objects.in_bulk([row["tenant_id"] for row in found])
    return Table(
        f"Tenants that sent most, {period.name}",
        ["tenant", "events", "size"],
        [
            [link_to(tenants[row["tenant_id"]]), f"{row['events']:,}", filesizeformat(row["bytes"])]
            for row in found
            if row["tenant_id"] in tenants
        ],
    )


def worker() -> Table:
    """When each periodic task last succeeded, and what is wrong with it."""
    with bypass_isolation():  # they belong to no tenant, and only superusers get here
        runs, late_tasks = {run.task: run for run in LastRun.objects.all()}, late(TASKS, timezone.now())
    rows = []
    for task in TASKS:
        run = runs.get(task.name)
        state = _state(run, is_late=task.name in late_tasks)
        took = f"{run.took.total_seconds():,.1f} s" if run and run.took is not None else "-"
        error = run.error if run else ""
        rows.append([task.name, badge(state, TASK_COLOURS), ago(run.succeeded_at if run else None), took, error or "-"])
    return Table("Periodic tasks", ["task", "state", "last success", "took", "error"], rows)


def _state(run: LastRun | None, *, is_late: bool) -> str:
    if run is not None and run.error:
        return "failed"
    if is_late:
        return "late"
    return "running" if run is not None and run.running_until else "fine"
