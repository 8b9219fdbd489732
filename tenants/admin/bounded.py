"""Admin lists that stay fast over tables of any size."""

from datetime import UTC, datetime, time
from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.dateparse import parse_date, parse_time
from django.utils.functional import cached_property
from unfold.contrib.filters.admin import RangeDateTimeFilter, TextFilter
from unfold.views import ChangeList

from common.id_order import RECEIVED_SLACK, first_id, next_id
from tenants.admin.display import exact
from tenants.admin.pages import SentByDevices
from tenants.isolation import bypass_isolation

MAX_COUNTED_ROWS = 10_000  # rows that a list counts and pages through
MAX_SEARCHED_ROWS = 500_000  # rows that a list's filters and search read


class IdFilter(TextFilter):
    """The rows that belong to another row, by its id. A link leads here; nobody types ids."""

    @property
    def row_id(self) -> int:
        value = self.value() or ""
        return int(value) if value.isdecimal() and len(value) < 19 else 0

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
        if date is None or not 1970 <= date.year < 9999:  # room for the slack
            return None
        return datetime.combine(date, (given_time or time_of_day).replace(tzinfo=UTC))

    @property
    def start(self) -> datetime | None:
        return self.bound("from", time.min)

    @property
    def end(self) -> datetime | None:
        return self.bound("to", time.max)

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


class BoundedPaginator(Paginator):
    """Counts up to MAX_COUNTED_ROWS: counting ten million takes seconds, and no one turns to page 400."""

    object_list: QuerySet
    template_name = "admin/bounded_pagination.html"

    @cached_property
    def counted(self) -> int:
        # Only the ids: counting a row needs none of the values that the list shows.
        return self.object_list.values("pk")[: MAX_COUNTED_ROWS + 1].count()

    @cached_property
    def count(self) -> int:
        return min(self.counted, MAX_COUNTED_ROWS)

    @property
    def has_more(self) -> bool:
        return self.counted > MAX_COUNTED_ROWS


class BoundedChangeList(ChangeList):
    """Always newest first: no filter or search reads more than MAX_SEARCHED_ROWS rows, by primary key.

    If older rows were left out, `looks_back_to` is when the newest of them was received.
    """

    looks_back_to: datetime | None = None

    def get_queryset(self, request: HttpRequest, exclude_parameters: list[str | None] | None = None) -> QuerySet:
        queryset = super().get_queryset(request, exclude_parameters)
        with bypass_isolation():  # for the ids alone: looking for one tenant's newest row may lead far back
            start, end = self.id_range()
        return queryset.filter(pk__gte=start, pk__lt=end)

    def id_range(self) -> tuple[int, int]:
        """The range of ids to search, without its end."""
        rows = self.model._default_manager.all()
        end = next_id(rows)
        ranges = [spec.id_range(rows, end) for spec in self.filter_specs if hasattr(spec, "id_range")]
        start, end = max((low for low, _ in ranges), default=0), min((high for _, high in ranges), default=end)
        if end - start > MAX_SEARCHED_ROWS:
            start = end - MAX_SEARCHED_ROWS
            left_out = rows.filter(pk__lt=start).order_by("-pk")
            self.looks_back_to = left_out.values_list(self.model_admin.received_field, flat=True).first()
        return start, end

    def get_ordering(self, request: HttpRequest, queryset: QuerySet) -> list[str]:
        return ["-pk"]  # whatever ?o= says: any other order would sort the table

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.full_result_count = self.result_count  # otherwise the header says "10000 results" when there are many more


class BoundedAdmin(SentByDevices):
    """For tables that grow without limit. Nothing in them can be deleted here."""

    received_field = "received_at"  # a time that grows with the ids
    paginator = BoundedPaginator
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
