"""The rows of a list of the admin, read as the list reads them: the same filters, for the same user, in its order."""

from collections.abc import Iterator
from copy import copy
from typing import Any, NamedTuple, cast

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ALL_VAR, PAGE_VAR
from django.contrib.messages.storage.cookie import CookieStorage
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import BinaryField, Field, ForeignKey, Model, QuerySet
from django.http import HttpRequest, QueryDict

from common.id_order import is_id
from tenants.admin.bounded import BoundedChangeList
from tenants.admin.changelist import StaffChangeList
from tenants.admin.pages import StaffPages
from tenants.audit import SECRETS

CHUNK_ROWS = 100  # of one query: a single event may be megabytes
NAMES = frozenset({"name", "slug", "title", "username"})  # fields of what people know by a name


class NotExportableError(Exception):
    """`str` says why, to the user."""


class Chunk(NamedTuple):
    """Some rows. The list goes on at `place`; None at its end. `total` is how many it has, if they are counted."""

    rows: list[Any]
    place: str | None
    total: int | None = None


def pages_of(label: str, user: Any) -> StaffPages:
    """The admin's pages of a model, if the user may see its list. Raises NotExportableError."""
    for model, pages in admin.site._registry.items():
        if model._meta.label_lower == label and getattr(pages, "is_exportable", False):
            if not (user.is_active and user.is_staff and pages.has_view_permission(_request(user, ""))):
                raise NotExportableError("You may no longer see this list.")
            return cast("StaffPages", pages)
    raise NotExportableError("There is no such list.")


def read(pages: StaffPages, user: Any, query: str, place: str) -> Iterator[Chunk]:
    """The list from `place` on, in chunks. Raises NotExportableError.

    The last chunk may have a place, too: a list searches a part of a large table at a time.
    """
    pages = copy(pages)
    pages.list_per_page = 1  # of the list itself, which is not used
    is_bounded = issubclass(pages.get_changelist(_request(user, "")), BoundedChangeList)
    try:
        found: Any = pages.get_changelist_instance(_request(user, query, place if is_bounded else ""))
    except IncorrectLookupParameters as error:
        raise NotExportableError("There is no such filter.") from error
    if found.refusals:
        raise NotExportableError(" ".join(found.refusals))
    yield from _read_bounded(found) if is_bounded else _read_all(found, place)


def _request(user: Any, query: str, place: str = "") -> HttpRequest:
    request = HttpRequest()
    request.method = "GET"
    given = QueryDict(query, mutable=True)
    for name in (PAGE_VAR, ALL_VAR, BoundedChangeList.BEFORE, BoundedChangeList.AFTER):
        given.pop(name, None)  # where someone has looked at the list does not matter
    if place:
        given[BoundedChangeList.BEFORE] = place
    request.GET = cast(Any, given)
    request.user = user
    cast(Any, request)._messages = CookieStorage(request)  # what the list says about itself: no one reads it here
    return request


def _read_bounded(found: BoundedChangeList) -> Iterator[Chunk]:
    queryset = _whole(found.queryset)
    while True:
        rows = found.find(queryset, CHUNK_ROWS)
        if len(rows) < CHUNK_ROWS:
            yield Chunk(rows, found.left_out)
            return
        place = found.order.place_of(rows[-1])
        yield Chunk(rows, place)
        found.place, found.newest_first = found.order.parse(place), True


def _read_all(found: StaffChangeList, place: str) -> Iterator[Chunk]:
    """By primary key, whatever the list is sorted by: rows that are added or changed meanwhile move no others."""
    queryset = _whole(found.queryset).order_by("-pk")
    while True:
        rows = list((queryset.filter(pk__lt=int(place)) if is_id(place) else queryset)[:CHUNK_ROWS])
        if len(rows) < CHUNK_ROWS:
            yield Chunk(rows, None, found.result_count)
            return
        place = str(rows[-1].pk)
        yield Chunk(rows, place, found.result_count)


def _whole(queryset: QuerySet) -> QuerySet:
    """With all that `values` needs, of which a list may leave out something, and without bytes."""
    fields = queryset.model._meta.concrete_fields
    named = [field.name for field in fields if _has_name(field)]
    bytes_ = [field.name for field in fields if isinstance(field, BinaryField)]
    return queryset.defer(None).defer(*bytes_).prefetch_related(*named)


def _has_name(field: Any) -> bool:
    """Whether it refers to something that people know by a name, which a batch is not."""
    return isinstance(field, ForeignKey) and not NAMES.isdisjoint(
        other.name for other in field.related_model._meta.concrete_fields
    )


def fields_of(model: type[Model]) -> list[Field]:
    """The fields that a file has: all but bytes, secrets, and what secrets are recognized by."""
    return [
        field
        for field in model._meta.concrete_fields
        if not isinstance(field, BinaryField) and field.name not in SECRETS and "digest" not in field.name
    ]


def columns(model: type[Model]) -> list[str]:
    """The names of the columns. What a row refers to has two if it has a name: its id, and the name."""
    names: list[str] = []
    for field in fields_of(model):
        names += [field.attname, field.name] if _has_name(field) else [field.attname]
    return names


def values(row: Model) -> Iterator[Any]:
    """The values for `columns`. The name of what has been deleted, or may not be seen, is empty."""
    for field in fields_of(type(row)):
        value = getattr(row, field.attname)
        yield value
        if _has_name(field):
            yield None if value is None else _name(row, field)


def _name(row: Model, field: Field) -> str | None:
    try:
        return str(getattr(row, field.name))
    except ObjectDoesNotExist:
        return None
