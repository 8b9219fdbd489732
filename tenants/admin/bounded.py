"""Admin lists that stay fast over tables of any size."""

from datetime import UTC, datetime, time
from typing import Any, cast

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.dateparse import parse_date, parse_time
from unfold.contrib.filters.admin import RangeDateTimeFilter, TextFilter

from common.id_order import RECEIVED_SLACK, first_id, is_id, next_id
from common.keyset import Order
from tenants.admin.changelist import StaffChangeList
from tenants.admin.display import exact
from tenants.admin.pages import SentByDevices
from tenants.isolation import bypass_isolation

MAX_SEARCHED_ROWS = 250_000  # rows that a list's filters and search read


class IdFilter(TextFilter):
    """The rows that belong to another row, by its id. A link leads here; nobody types ids."""

    @property
    def row_id(self) -> int:
        value = self.value() or ""
        return int(value) if is_id(value) else 0

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(**{f"{self.parameter_name}_id": self.row_id}) if self.value() else queryset


class ReceivedFilter(RangeDateTimeFilter):
    """A range of a time that grows with the ids. A date without a time is the whole day; all of it is UTC."""

    def bound(self, end: str, time_of_day: time) -> datetime | None:
        date_text = self.used_parameters.get(f"{self.parameter_name}_{end}_0") or ""
        time_text = self.used_parameters.get(f"{self.parameter_name}_{end}_1") or ""
        try:
            date, given_time = parse_date(date_text), parse_time(time_text)
        except ValueError:  # well-formed, but there is no such day
            return None
        if (time_text and given_time is None) or date is None or not 1970 <= date.year < 9999:  # room for the slack
            return None
        return datetime.combine(date, (given_time or time_of_day).replace(tzinfo=UTC))

    @property
    def start(self) -> datetime | None:
        return self.bound("from", time.min)

    @property
    def end(self) -> datetime | None:
        return self.bound("to", time.max)

    @property
    def has_wrong_value(self) -> bool:
        """Whether a date or a time was given of which no bound can be made."""
        given = {name.split("_")[-2] for name, value in self.used_parameters.items() if value}
        return ("from" in given and self.start is None) or ("to" in given and self.end is None)

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.start:
            queryset = queryset.filter(**{f"{self.parameter_name}__gte": self.start})
        if self.end:
            queryset = queryset.filter(**{f"{self.parameter_name}__lte": self.end})
        return queryset

    def id_range(self, rows: QuerySet, end: int) -> tuple[int, int]:
        """The range of ids, without its end, that contains every row of the time range. `end` is past the newest id."""
        field = self.parameter_name
        start = first_id(rows, field, self.start - RECEIVED_SLACK, end) if self.start else 0
        return start, first_id(rows, field, self.end + RECEIVED_SLACK, end) if self.end else end


class OlderAndNewer:
    """What a list has below it, in place of numbered pages: links to the rows before and after those shown."""

    template_name = "admin/bounded_pagination.html"

    def __init__(self, older: str | None, newer: str | None, *, searches: bool) -> None:
        self.older, self.newer = older, newer
        self.searches = searches  # the older rows were not searched


class BoundedChangeList(StaffChangeList):
    """Always newest first, without a count: one row more than a page shows tells whether there are others.

    No filter or search reads more than MAX_SEARCHED_ROWS rows, by primary key. If older rows were left out,
    `looks_back_to` is when the newest of them was received.
    """

    BEFORE, AFTER = "before", "after"  # the place where the page ends or begins, in the query string

    order = Order("pk")
    looks_back_to: datetime | None = None
    place: tuple[Any, ...] | None = None
    newest_first = True  # in which direction the rows are read from the place
    left_out: str | None = None  # the place of the newest row that was not searched

    def get_filters(self, request: HttpRequest) -> Any:
        places = {name: self._pop(name, request) for name in (self.BEFORE, self.AFTER)}
        found = super().get_filters(request)
        self.filter_specs = found[0]
        self.order = self.get_order()
        for name, text in places.items():
            if text:
                self._start_at(name, text)
        return found

    def _pop(self, name: str, request: HttpRequest) -> str:
        """Take a parameter out of the address: it is no filter, and no link or form keeps it."""
        self.filter_params.pop(name, None)
        query = request.GET.copy()
        query.pop(name, None)
        request.GET = cast(Any, query)
        return self.params.pop(name, "")

    def _start_at(self, name: str, text: str) -> None:
        try:
            self.place = self.order.parse(text)
        except ValueError:
            self.refusals.append(f"“{name}” is not a place in this list.")
        self.newest_first = name == self.BEFORE

    def get_order(self) -> Order:
        """Filters may find rows in another order than by primary key."""
        return self.order

    def get_queryset(self, request: HttpRequest, exclude_parameters: list[str | None] | None = None) -> QuerySet:
        queryset = super().get_queryset(request, exclude_parameters)
        return queryset if self.refusals else self.bound(queryset)

    def bound(self, queryset: QuerySet) -> QuerySet:
        """The rows of `queryset` that are searched."""
        with bypass_isolation():  # for the ids alone: looking for one tenant's newest row may lead far back
            start, end = self.id_range()
        return queryset.filter(pk__gte=start, pk__lt=end)

    def id_range(self) -> tuple[int, int]:
        """The range of ids to search, without its end."""
        rows = self.model._default_manager.all()
        end = next_id(rows)
        ranges = [spec.id_range(rows, end) for spec in self.filter_specs if hasattr(spec, "id_range")]
        start, end = max((low for low, _ in ranges), default=0), min((high for _, high in ranges), default=end)
        if self.place and self.newest_first:
            end = min(end, self.place[-1])
        elif self.place:
            start = max(start, self.place[-1] + 1)
        if end - start > self.max_searched:
            start, end = self._cut(rows, start, end)
        return start, end

    @property
    def max_searched(self) -> int:
        return MAX_SEARCHED_ROWS

    def _cut(self, rows: QuerySet, start: int, end: int) -> tuple[int, int]:
        """The part of a range that is searched: the end at which reading begins."""
        if not self.newest_first:
            self.left_out = str(start + self.max_searched - 1)
            return start, start + self.max_searched
        start = end - self.max_searched
        left_out = rows.filter(pk__lt=start).order_by("-pk")
        self.looks_back_to = left_out.values_list(self.model_admin.received_field, flat=True).first()
        self.left_out = str(start) if self.looks_back_to else None
        return start, end

    def get_ordering(self, request: HttpRequest, queryset: QuerySet) -> list[str]:
        return ["-pk"]  # whatever ?o= says: any other order would sort the table

    def find(self, queryset: QuerySet, limit: int) -> list[Model]:
        """The first `limit` rows from the place, in the direction of reading."""
        if self.place:
            queryset = queryset.filter(self.order.beyond(self.place, newest_first=self.newest_first))
        return list(self.order.sort(queryset, newest_first=self.newest_first)[:limit])

    def get_results(self, request: HttpRequest) -> None:
        found = self.find(self.queryset, self.list_per_page + 1)
        rows, has_more = found[: self.list_per_page], len(found) > self.list_per_page
        if not self.newest_first:
            rows.reverse()
            if not has_more and not self.left_out:  # this is the top of the list: show a whole page of it
                self._start_at_the_top(request)
                return
        self.paginator = OlderAndNewer(*self._links(rows, has_more), searches=not has_more)
        self.result_list, self.result_count, self.full_result_count = rows, len(rows), len(rows)
        self.show_full_result_count = self.can_show_all = self.multi_page = False
        self.show_admin_actions = bool(rows)
        self.say_refusals(request)

    def _start_at_the_top(self, request: HttpRequest) -> None:
        self.place, self.newest_first = None, True
        self.queryset = self.get_queryset(request)
        self.get_results(request)

    def _links(self, rows: list[Model], has_more: bool) -> tuple[str | None, str | None]:
        """The addresses of the older and of the newer rows."""
        first, last = (self.order.place_of(rows[0]), self.order.place_of(rows[-1])) if rows else (None, None)
        if not self.newest_first:
            return self._at(self.BEFORE, last), self._at(self.AFTER, first if has_more else self.left_out)
        older = self._at(self.BEFORE, last if has_more else self.left_out)
        newer = self._at(self.AFTER, first) or self.get_query_string() if self.place else None
        return older, newer

    def _at(self, name: str, place: str | None) -> str | None:
        return self.get_query_string({name: place}) if place else None


class BoundedAdmin(SentByDevices):
    """For tables that grow without limit. Nothing in them can be deleted here."""

    received_field = "received_at"  # a time that grows with the ids
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # facets count the table once per choice
    list_before_template = "admin/bounded_list_note.html"
    list_filter_submit = True
    list_disable_select_all = True
    list_per_page = 50
    sortable_by = ()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedChangeList]:
        return BoundedChangeList

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Without a link to a history: nobody changes these rows."""
        return super().change_view(request, object_id, form_url, (extra_context or {}) | {"show_history": False})

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """If a sequence was ever set back, two events may have the same id: the newest is shown."""
        try:
            return super().get_object(request, object_id, from_field)
        except self.model.MultipleObjectsReturned:
            # With all columns: one that is left out would be read by the id alone, which finds both.
            return self.get_queryset(request).defer(None).filter(pk=object_id).order_by("-received_at").first()

    @admin.display(description="timestamp (the device's clock)")
    def device_time(self, row: Any) -> str:
        return exact(row.timestamp)
