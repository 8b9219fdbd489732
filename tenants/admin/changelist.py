"""The lists of the admin: their tables, and what they say about a search or a filter that they don't have."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from django.contrib import messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import build_q_object_from_lookup_parameters, lookup_field
from django.core.exceptions import FieldDoesNotExist, ObjectDoesNotExist
from django.db.models import DateField, ForeignKey, ManyToOneRel, Model, QuerySet, TimeField
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter
from unfold.templatetags.unfold_list import CHECKBOX_CLASSES, LINK_CLASSES, ROW_CLASSES, result_headers
from unfold.utils import display_for_field, display_for_value
from unfold.views import ChangeList

from tenants.admin.display import page_of


class Column(NamedTuple):
    """A column, and what surrounds the value in each of its cells."""

    name: str
    is_link: bool
    before: SafeString
    after: SafeString


class RefusesFilters(ChangeList):
    """Shows no rows for a search or a filter that it can't do, and says why: Django would leave it out, or everything.

    What is left out finds too many rows, of which someone may then revoke or delete all.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.refusals: list[str] = []  # what is wrong with the address
        super().__init__(*args, **kwargs)

    def get_filters(self, request: HttpRequest) -> Any:
        """Those that can be done; `refusals` says what is wrong with the others."""
        if self.query and not self.search_fields:
            self._refuse("This list can't be searched.")
        for name, values in self.get_filters_params().items():
            if not all(self.model_admin.lookup_allowed(name, value, request) for value in values):
                self._refuse(f"Unknown filter “{name}”.", name)
        specs, _, others, *_ = found = super().get_filters(request)
        for spec in specs:
            if self._has_wrong_value(spec, request):
                self._refuse(f"The filter “{spec.title}” has no such value.", *spec.expected_parameters())
        for name, values in others.items():
            if not self._is_lookup(name, values):
                self._refuse(f"Unknown filter “{name}”, or it has no such value.", name)
        return super().get_filters(request) if self.refusals else found

    def _refuse(self, why: str, *names: str | None) -> None:
        self.refusals.append(why)
        for name in names:
            self.filter_params.pop(name, None)
            self.params.pop(name, None)

    def _has_wrong_value(self, spec: Any, request: HttpRequest) -> bool:
        if isinstance(spec, RadioFilter) and spec.value():
            return spec.value() not in [str(value) for value, _ in spec.lookup_choices]
        try:
            spec.queryset(request, self.root_queryset)
        except IncorrectLookupParameters:
            return True
        return getattr(spec, "has_wrong_value", False)

    def _is_lookup(self, name: str, values: list[Any]) -> bool:
        """Whether it is a condition on a field, which Django allows in the address of a list."""
        try:
            self.root_queryset.filter(build_q_object_from_lookup_parameters({name: values}))
        except Exception:  # noqa: BLE001  Django says at the same place: it might be anything
            return False
        return True

    def get_queryset(self, request: HttpRequest, exclude_parameters: list[str | None] | None = None) -> QuerySet:
        queryset = super().get_queryset(request, exclude_parameters)
        return queryset.none() if self.refusals else queryset

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.say_refusals(request)

    def say_refusals(self, request: HttpRequest) -> None:
        for refusal in self.refusals:
            self.model_admin.message_user(request, f"{refusal} Nothing was looked for.", messages.ERROR)


class StaffChangeList(RefusesFilters):
    """Makes the headers once. unfold's own table makes all of them, with their links, again for each row, and evaluates
    a long template for it, which takes longer than everything else on the page.

    A cell shows no labels, dropdowns and forms of unfold, because our lists have none.
    """

    @cached_property
    def headers(self) -> list[dict[str, Any]]:
        return list(result_headers(self))

    @property
    def sorted_count(self) -> int:
        """By how many columns the list is sorted."""
        return sum(header["sortable"] and header["sorted"] for header in self.headers)

    def rows(self) -> Iterator[SafeString]:
        """The cells of each row."""
        columns = list(self._columns())
        filters = add_preserved_filters({"preserved_filters": self.preserved_filters, "opts": self.opts}, "")
        for row in self.result_list:
            yield format_html_join("", "{}{}{}", self._cells(row, columns, filters))

    def _columns(self) -> Iterator[Column]:
        tags = iter(["th"])  # of the first link
        for index, (name, header) in enumerate(zip(self.list_display, self.headers, strict=True)):
            is_link = name in (self.list_display_links or ())
            tag = next(tags, "td") if is_link else "td"
            classes = CHECKBOX_CLASSES if name == "action_checkbox" else [f"field-{name}", *ROW_CLASSES]
            label = header["text"] if index or is_link else "Select record"
            start = ('<{} class="{}" data-label="{}">', tag, " ".join([*classes, *self._one_line(name)]), label)
            yield Column(name, is_link, format_html(*start), format_html("</{}>", tag))

    def _one_line(self, name: str) -> list[str]:
        try:
            field = self.lookup_opts.get_field(name)
        except FieldDoesNotExist:
            return []
        return ["nowrap"] if isinstance(field, DateField | TimeField | ForeignKey) else []

    def _cells(self, row: Model, columns: list[Column], filters: str) -> Iterator[tuple[SafeString, Any, SafeString]]:
        for column in columns:
            value = self._value(row, column.name)
            yield column.before, self._link(row, value, filters) if column.is_link else value, column.after

    def _value(self, row: Model, name: str) -> Any:
        empty = self.model_admin.get_empty_value_display()
        try:
            field, attribute, value = lookup_field(name, row, self.model_admin)
        except ObjectDoesNotExist:
            return empty
        empty = getattr(attribute, "empty_value_display", empty)
        if field is None or field.auto_created:
            return display_for_value(value, empty, getattr(attribute, "boolean", False))
        if isinstance(field.remote_field, ManyToOneRel):
            target = getattr(row, field.name)
            return empty if target is None else target
        return display_for_field(value, field, empty)

    def _link(self, row: Model, text: Any, filters: str) -> SafeString:
        opener = format_html(' data-popup-opener="{}"', row.pk) if self.is_popup else ""
        classes = " ".join(LINK_CLASSES)
        return format_html('<a href="{}{}" class="{}" {}>{}</a>', page_of(row), filters, classes, opener, text)
