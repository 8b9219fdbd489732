"""Staff pages for events: the list finds those of a batch, of a device and around a moment at once, in any table."""

import json
from collections.abc import Iterator
from datetime import datetime, time, timedelta
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet, TextField
from django.db.models.functions import Cast, Left
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesCheckboxFilter
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from common.id_order import RECEIVED_SLACK, first_id, is_id
from common.keyset import Order
from devices.models import Device
from ingest.finding import THROUGH_BATCHES, batches_of, received_between, through_batches
from ingest.models import IngestBatch, IngestEvent, Kind
from ingest.moments import InvalidMomentError, parse_moment
from ingest.searching import InvalidSearchError, search
from tenants.admin.bounded import BoundedAdmin, BoundedChangeList, IdFilter
from tenants.admin.display import badge, exact, related
from tenants.admin.pages import RelatedFilter
from tenants.models import Tenant

SUMMARY_LENGTH = 160
MAX_SEARCHED_DATA = 50_000  # rows whose data one page searches for a text
AROUND = timedelta(minutes=5)  # before and after a moment
LONGEST_BY_DEVICE = timedelta(days=1)  # a window by the clocks of devices, of which all events are sorted
KIND_COLOURS = {
    Kind.TELEMETRY: "info",
    Kind.LOG: None,
    Kind.SECURITY_ALERT: "danger",
    Kind.DISCOVERY: "primary",
    Kind.BACKUP_EVENT: "success",
}
OURS, DEVICES = "ours", "device"
CLOCKS = {OURS: "ours (received)", DEVICES: "the device's (timestamp)"}


class WindowForm(forms.Form):
    """The fields of WindowFilter."""

    around = forms.CharField(
        label="Around", required=False,
        widget=UnfoldAdminTextInputWidget({"placeholder": "14:05 or 2026-11-20 14:05"}),
        help_text="UTC, with five minutes before and after. Or a range:",
    )  # fmt: skip
    since = forms.CharField(label="From", required=False, widget=UnfoldAdminTextInputWidget)
    until = forms.CharField(label="To", required=False, widget=UnfoldAdminTextInputWidget)
    clock = forms.ChoiceField(
        label="By which clock", required=False, choices=list(CLOCKS.items()), widget=UnfoldAdminSelectWidget
    )


class WindowFilter(admin.ListFilter):
    """A window of time, around a moment or from one to another, by our clock or the device's.

    `refusal` says what can't be understood.
    """

    title = "time"
    template = "unfold/filters/filters_field.html"
    NAMES = ("around", "since", "until", "clock")

    start: datetime | None = None
    end: datetime | None = None
    refusal = ""

    def __init__(
        self, request: HttpRequest, params: dict[str, list[str]], model: type[Model], model_admin: Any
    ) -> None:
        super().__init__(request, params, model, model_admin)
        given = {name: params.pop(name)[-1] for name in self.NAMES if name in params}
        self.used_parameters = dict(given)
        self.clock = given.get("clock") or OURS
        try:
            self._read(*(given.get(name, "").strip() for name in ("around", "since", "until")))
        except InvalidMomentError as error:
            self.refusal = str(error)

    def _read(self, around: str, since: str, until: str) -> None:
        now = timezone.now()
        if self.clock not in CLOCKS:
            raise InvalidMomentError(f"There is no clock “{self.clock[:40]}”: it is “{OURS}” or “{DEVICES}”.")
        if around and (since or until):
            raise InvalidMomentError("Give either a moment or a range of time.")
        if around:
            moment = parse_moment(around, now)
            self.start, self.end = moment - AROUND, moment + AROUND
        self.start = parse_moment(since, now, time.min) if since else self.start
        self.end = parse_moment(until, now, time.max) if until else self.end
        if self.start and self.end and self.start > self.end:
            raise InvalidMomentError("The range of time ends before it begins.")
        if self.is_by_device and not (self.start and self.end and self.end - self.start <= LONGEST_BY_DEVICE):
            raise InvalidMomentError("By the device's clock a range needs both ends, at most a day apart.")

    @property
    def is_by_device(self) -> bool:
        return self.clock == DEVICES and bool(self.start or self.end)

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[str | None]:
        return list(self.NAMES)

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        yield {"form": WindowForm({"clock": OURS} | self.used_parameters)}

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        field = "timestamp" if self.is_by_device else "received_at"
        bounds = {f"{field}__gte": self.start, f"{field}__lte": self.end}
        return queryset.filter(**{name: moment for name, moment in bounds.items() if moment})

    def id_range(self, rows: QuerySet, end: int) -> tuple[int, int]:
        """The range of ids, without its end, that contains every row that was received in the window."""
        if self.is_by_device:
            return 0, end
        start = first_id(rows, "received_at", self.start - RECEIVED_SLACK, end) if self.start else 0
        return start, first_id(rows, "received_at", self.end + RECEIVED_SLACK, end) if self.end else end

    @property
    def in_words(self) -> str:
        """The window as it was understood."""
        clock = "by the device's clock" if self.is_by_device else "by our clock"
        if self.start and self.end:
            return f"from {exact(self.start)} to {exact(self.end)}, {clock}"
        if self.start:
            return f"since {exact(self.start)}, {clock}"
        return f"until {exact(self.end)}, {clock}" if self.end else "at any time"


class BatchFilter(IdFilter):
    """The events of one batch."""

    title = "batch"
    parameter_name = "batch"


class EventChangeList(BoundedChangeList):
    """Finds the events of a batch or a device through batches, those in a window by the device's clock by an index,
    and all others by primary key.
    """

    @cached_property
    def window(self) -> WindowFilter:
        return next(spec for spec in self.filter_specs if isinstance(spec, WindowFilter))

    @cached_property
    def batch_id(self) -> int | None:
        """The batch that the filter names: 0 if it can't be one."""
        spec = next(spec for spec in self.filter_specs if isinstance(spec, BatchFilter))
        return spec.row_id if spec.value() else None

    @cached_property
    def device(self) -> Device | None:
        """The device that the filter names, if the user may see it."""
        [text] = self.filter_params.get("device__id__exact", [""])[-1:] or [""]
        devices = Device.objects.for_user(self.user).select_related("tenant")
        return devices.filter(pk=int(text)).first() if is_id(text) else None

    @cached_property
    def batches(self) -> QuerySet[IngestBatch] | None:
        """The batches whose events are looked through. None if the events are found otherwise."""
        if self.batch_id is not None:
            return IngestBatch.objects.for_user(self.user).filter(pk=self.batch_id)
        if self.device is None or self.window.is_by_device:
            return None
        return received_between(batches_of(self.device), self.window.start, self.window.end)

    def get_queryset(self, request: HttpRequest, exclude_parameters: list[str | None] | None = None) -> QuerySet:
        self.user = request.user
        return super().get_queryset(request, exclude_parameters)

    def get_order(self) -> Order:
        if self.window.refusal:
            self.refusals.append(self.window.refusal)
        elif self.batches is not None:
            return THROUGH_BATCHES
        elif self.window.is_by_device:
            return Order("timestamp", "pk")
        return self.order

    def bound(self, queryset: QuerySet) -> QuerySet:
        if self.batches is not None:
            return queryset
        if self.window.is_by_device:
            # The columns before the time in the index, so that it is used.
            tenants = Tenant.objects.for_user(self.user).values_list("pk", flat=True)
            of = [self.device.tenant_id] if self.device else list(tenants)
            return queryset.filter(tenant__in=of, kind__in=Kind.values)
        return super().bound(queryset)

    @property
    def max_searched(self) -> int:
        return MAX_SEARCHED_DATA if self.query else super().max_searched

    def find(self, queryset: QuerySet, limit: int) -> list[Model]:
        if self.batches is None or self.refusals:
            return super().find(queryset, limit)
        found = through_batches(queryset, self.batches, limit, self.place, newest_first=self.newest_first)
        self.left_out = found.place
        self.looks_back_to = found.received_at if self.newest_first else None
        return cast("list[Model]", found.events)

    @property
    def note(self) -> str:
        """Which time was understood, by which clock."""
        has_window = (self.window.start or self.window.end) and not self.refusals
        return f"Events {self.window.in_words}." if has_window else ""

    def reasons(self) -> Iterator[SafeString | str]:
        """Why the list is empty, and what to try."""
        if self.refusals:
            return
        if self.batch_id is not None and not (self.batches and self.batches.exists()):
            yield "There is no such batch, or it has expired, or it belongs to a tenant of which you are no member."
        if self.device:
            yield from self._about(self.device)
        if self.query:
            yield "A text is looked for within the values of the data, an address as a whole value."

    def _about(self, device: Device) -> Iterator[SafeString | str]:
        last = through_batches(IngestEvent.objects.for_user(self.user).defer("data"), batches_of(device), 1).events
        if last:
            query = around(last[0])
            url = reverse("admin:ingest_ingestevent_changelist", query=query)
            yield format_html(
                'The device last sent an event at <a class="text-link" href="{}">{}</a>.',
                url,
                exact(last[0].received_at),
            )
        else:
            yield "The device has sent no event that is still kept."
        if days := device.tenant.retention_days:
            yield f"Events of {device.tenant} are kept for {days} day{'s' if days > 1 else ''}."


def around(event: IngestEvent) -> dict[str, Any]:
    """The query string for what its device sent around `event`."""
    return {"device__id__exact": event.device_id, "around": f"{event.received_at:%Y-%m-%d %H:%M:%S}"}


@admin.register(IngestEvent)
class IngestEventAdmin(BoundedAdmin):
    # The time before what may be long: however narrow the page, it is not cut off.
    list_display = ("event_id", "received", "nearby", "kind_label", "tenant_link", "device_link", "summary")
    list_filter = (
        WindowFilter,
        ("device", RelatedFilter),
        ("tenant", RelatedFilter),
        ("kind", ChoicesCheckboxFilter),
        BatchFilter,
    )
    search_fields = ("data",)
    search_help_text = "Text, address or network in the data"
    fields = (
        ("event_id", "kind_label"),
        ("tenant_link", "device_link"),
        ("received", "device_time"),
        ("batch_link", "nearby"),
        "pretty_data",
    )
    actions = None

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[EventChangeList]:
        return EventChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """A list reads and shows only the start of `data`: one event may be megabytes."""
        start = Left(Cast("data", TextField()), SUMMARY_LENGTH)
        return super().get_queryset(request).defer("data").annotate(data_start=start)

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        if not search_term.strip():
            return queryset, False
        try:
            return search(queryset, search_term), False
        except InvalidSearchError as error:
            self.message_user(request, f"{error} Nothing was searched for.", messages.ERROR)
            return queryset.none(), False

    @admin.display(description="event")
    def event_id(self, event: IngestEvent) -> str:
        return f"#{event.pk}"

    @admin.display(description="kind")
    def kind_label(self, event: IngestEvent) -> SafeString:
        return badge(event.kind, KIND_COLOURS, event.get_kind_display())

    @admin.display(description="data")
    def summary(self, event: Any) -> SafeString:
        start = " ".join(event.data_start.split())
        return format_html('<span class="code one-line">{}</span>', start)

    @admin.display(description="data")
    def pretty_data(self, event: IngestEvent) -> SafeString:
        text = json.dumps(event.data, indent=2, ensure_ascii=False)
        return format_html('<pre class="code">{}</pre>', text)

    @admin.display(description="batch")
    def batch_link(self, event: IngestEvent) -> SafeString:
        return related(event, "batch")

    @admin.display(description="nearby")
    def nearby(self, event: IngestEvent) -> SafeString:
        url = reverse("admin:ingest_ingestevent_changelist", query=around(event))
        return format_html(
            '<a class="text-link whitespace-nowrap" href="{}" title="What the device sent around it">±5 minutes</a>',
            url,
        )
