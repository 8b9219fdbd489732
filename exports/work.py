"""Makes exports, step by step, in the background. docs/decisions/0046 says why it is like this."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from django.apps import apps
from django.db import DatabaseError, transaction
from django.db.models import F, Model
from django.utils import timezone

from common.spreadsheets import as_csv
from exports.models import KEPT, Format, ListExport, ListExportPart
from exports.reading import NotExportableError, columns, pages_of, read, values
from tenants.audit import tenant_of
from tenants.isolation import acting_as
from tenants.models import Membership

logger = logging.getLogger(__name__)

RUN_SECONDS = 20.0  # of the worker, before it looks after its other tasks
STEP_SECONDS = 1.5  # a page's transaction has four
PART_BYTES = 4 * 1024 * 1024
FILE_BYTES = 16 * 1024 * 1024  # after which the next file begins: each is answered whole
MAX_ROWS = 1_000_000
MAX_FAILURES = 5  # in a row
TOO_LONG = "It was ended after {:,} rows. Filter the list, and export the rest."
MEMBERSHIPS_CHANGED = "Your memberships have changed since. Export the list again."


class Step(NamedTuple):
    """What one step read."""

    rows: int
    content: bytes
    counts: Counter[int]
    place: str | None
    total: int | None


def scope(user: Any) -> list[int] | None:
    """The tenants of which `user` may see rows, as an export keeps them; None for all."""
    if user.is_superuser:
        return None
    return sorted(Membership.objects.filter(user=user).values_list("tenant_id", flat=True))


def continue_exports() -> None:
    """Go on with all exports, in turns, and delete those that have expired."""
    ListExport.objects.filter(created_at__lt=timezone.now() - KEPT).delete()
    end = time.monotonic() + RUN_SECONDS
    while time.monotonic() < end:
        running = ListExport.objects.filter(finished_at=None).select_related("user")
        export = running.order_by(F("stepped_at").asc(nulls_first=True), "pk").first()
        if export is None:
            return
        take_step(export)


def take_step(export: ListExport) -> None:
    """Read some more rows of `export` and store them, unless another process has done so meanwhile."""
    now = timezone.now()
    try:
        if scope(export.user) != export.tenants:
            raise NotExportableError(MEMBERSHIPS_CHANGED)
        with acting_as(export.user):
            step = _read(export)
    except NotExportableError as error:
        _end(export, now, str(error))
    except DatabaseError:  # it took too long; if the database is away, noting it fails too
        _note_failure(export, now)
    except Exception:
        logger.exception("%s failed", export)
        _note_failure(export, now)
    else:
        _store(export, step, now)


def _read(export: ListExport) -> Step:
    pages = pages_of(export.model, export.user)
    step = Step(0, b"", Counter(), None, None)
    end = time.monotonic() + STEP_SECONDS
    for rows, place, total in read(pages, export.user, export.query, export.place):
        content = step.content + as_text(export.format, pages.model, rows).encode()
        counts = step.counts + Counter(tenant for row in rows if (tenant := tenant_of(row)) is not None)
        step = Step(step.rows + len(rows), content, counts, place, total)
        if len(content) > PART_BYTES or time.monotonic() > end:
            break
    return step


def as_text(kind: str, model: type[Model], rows: Iterable[Model]) -> str:
    """Rows as lines of a file, without the first line that a CSV file has."""
    if kind == Format.CSV:
        return as_csv(None, ([as_cell(value) for value in values(row)] for row in rows))
    names = columns(model)
    objects = (dict(zip(names, values(row), strict=True)) for row in rows)
    return "".join(f"{json.dumps(each, default=as_cell, ensure_ascii=False)}\n" for each in objects)


def as_cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value.isoformat() if hasattr(value, "isoformat") else value


def first_line(export: ListExport) -> bytes:
    """What a file begins with."""
    if export.format != Format.CSV:
        return b""
    return as_csv(columns(apps.get_model(export.model)), ()).encode()


def _store(export: ListExport, step: Step, now: datetime) -> None:
    rows, size = export.rows + step.rows, export.bytes + len(step.content)
    is_cut = rows >= MAX_ROWS and step.place is not None
    has_ended = step.place is None or is_cut
    counts = Counter({int(tenant): count for tenant, count in export.counts.items()}) + step.counts
    file = export.bytes // FILE_BYTES + 1
    changes = {
        "rows": rows,
        "bytes": size,
        "files": file if step.content else export.files,
        "counts": counts,
        "place": step.place or "",
        "done": min(1.0, rows / step.total) if step.total else None,
        "finished_at": timezone.now() if has_ended else None,
        "error": TOO_LONG.format(rows) if is_cut else "",
        "failures": 0,
    }
    with transaction.atomic():
        if _has_changed(export, now, changes) and step.content:
            ListExportPart.objects.create(
                export=export, user=export.user, step=export.steps, file=file, content=step.content
            )


def _note_failure(export: ListExport, now: datetime) -> None:
    if export.failures + 1 >= MAX_FAILURES:
        _end(export, now, "It could not be read in time. Filter the list, or try again later.")
    else:
        _has_changed(export, now, {"failures": export.failures + 1})


def _end(export: ListExport, now: datetime, why: str) -> None:
    _has_changed(export, now, {"finished_at": timezone.now(), "error": why})


def _has_changed(export: ListExport, now: datetime, changes: dict[str, Any]) -> bool:
    """Whether `export` was changed. Not if another process has taken this step."""
    same = ListExport.objects.filter(pk=export.pk, steps=export.steps, failures=export.failures, finished_at=None)
    return bool(same.update(**changes, stepped_at=now, steps=F("steps") + 1))
