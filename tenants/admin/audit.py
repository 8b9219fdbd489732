"""The audit in the admin: read-only for everybody, and as a file."""

import json
from collections import Counter
from typing import Any, cast

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesCheckboxFilter, TextFilter

from common.spreadsheets import as_csv
from tenants import audit
from tenants.admin.bounded import BoundedAdmin, BoundedChangeList, ReceivedFilter
from tenants.admin.display import badge, exact, page_of, related
from tenants.admin.pages import RelatedFilter, TenantScoped
from tenants.models import AuditEntry, AuditEntryQuerySet, Tenant, Verb

MAX_EXPORTED = 10_000  # entries
MAX_QUERY = 2000  # characters
CUT_HEADER = "X-Export-Cut"  # "yes" if there are more
COLUMNS = (
    "id", "at", "actor_kind", "actor_id", "actor_name", "source", "request_id", "tenant", "verb", "object_type",
    "object_id", "object_name", "owner_type", "owner_id", "before", "after",
)  # fmt: skip
MAX_ID_DIGITS = 18
COLOURS = {Verb.SIGN_IN_FAILED: "warning"} | dict.fromkeys(
    (Verb.MEMBER_REMOVED, Verb.USER_DELETED, Verb.GROUP_DELETED, Verb.DEVICE_KEY_REVOKED,
     Verb.PROVISIONING_KEY_REVOKED), "danger"
)  # fmt: skip


class ObjectFilter(TextFilter):
    """What was done to one object. A link leads here; nobody types its value."""

    title = "object"
    parameter_name = "object"
    has_index = True

    def queryset(self, request: HttpRequest, queryset: Any) -> QuerySet:
        if not self.value():
            return queryset
        label, _, number = self.value().rpartition("-")
        is_id = number.isascii() and number.isdecimal() and len(number) <= MAX_ID_DIGITS
        return cast("AuditEntryQuerySet", queryset).about(label, int(number) if is_id else 0)


class NameFilter(TextFilter):
    """What one user, command or key did: the whole name, whatever its case."""

    title = "name of who did it"
    parameter_name = "actor_name"

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(actor_name__iexact=self.value()) if self.value() else queryset


class AuditChangeList(BoundedChangeList):
    def id_range(self) -> tuple[int, int]:
        """All of it for one object: an index finds its entries, however old they are."""
        if any(getattr(spec, "has_index", False) and spec.value() for spec in self.filter_specs):
            return 0, 2**63 - 1
        return super().id_range()


@admin.register(AuditEntry)
class AuditEntryAdmin(BoundedAdmin):
    received_field = "at"
    is_exportable = False  # it has downloads of its own
    list_display = ("time", "actor", "verb_label", "object_label", "tenant_or_site", "source")
    list_display_links = ("time",)
    list_filter = (
        ("verb", ChoicesCheckboxFilter),
        ("actor_kind", ChoicesCheckboxFilter),
        NameFilter,
        ("tenant", RelatedFilter),
        ("at", ReceivedFilter),
        ObjectFilter,
    )
    list_before_template = "admin/tenants/auditentry/before_list.html"
    search_fields = ("actor_name", "object_name", "source")
    search_help_text = "Who, object or address"
    fields = (
        ("verb_label", "time"),
        ("actor", "kind"),
        ("source", "request_id"),
        ("object_label", "object_kind"),
        "tenant_or_site",
        "values_before",
        "values_after",
    )
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return TenantScoped.get_queryset(self, request).prefetch_related("tenant")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[AuditChangeList]:
        return AuditChangeList

    def get_urls(self) -> list[URLPattern]:
        exports = [
            path(f"export/{kind}/", self.admin_site.admin_view(self.export), {"kind": kind}, f"audit_export_{kind}")
            for kind in ("csv", "jsonl")
        ]
        return exports + super().get_urls()

    def export(self, request: HttpRequest, kind: str) -> HttpResponse:
        """The newest MAX_EXPORTED entries that pass the filter in the address, as CSV or as lines of JSON.

        Not streamed: the page's transaction, which isolates its user, ends before a stream begins.
        """
        if not self.has_view_permission(request):
            return HttpResponse("You may not see the audit.", status=403, content_type="text/plain")
        try:
            found = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters:
            return HttpResponse("There is no such filter.", status=400, content_type="text/plain")
        entries = list(found.order_by("-pk")[: MAX_EXPORTED + 1])
        is_cut = len(entries) > MAX_EXPORTED
        rows = [represent(entry) for entry in entries[:MAX_EXPORTED]]
        record_export(request, entries[:MAX_EXPORTED])
        if kind == "csv":
            lines = ([as_cell(row[column]) for column in COLUMNS] for row in rows)
            response = HttpResponse(as_csv(COLUMNS, lines), content_type="text/csv; charset=utf-8")
        else:
            text = "".join(f"{json.dumps(row, cls=DjangoJSONEncoder)}\n" for row in rows)
            response = HttpResponse(text, content_type="application/jsonl")
        response["Content-Disposition"] = f'attachment; filename="audit-{timezone.now():%Y%m%dT%H%M%SZ}.{kind}"'
        response[CUT_HEADER] = "yes" if is_cut else "no"
        return response

    @admin.display(description="when")
    def time(self, entry: AuditEntry) -> SafeString:
        return format_html('<span class="whitespace-nowrap">{}</span>', exact(entry.at))

    @admin.display(description="who")
    def actor(self, entry: AuditEntry) -> str:
        return entry.actor

    @admin.display(description="type of who did it")
    def kind(self, entry: AuditEntry) -> str:
        number = f" #{entry.actor_id}" if entry.actor_id else ""
        return f"{entry.get_actor_kind_display().lower()}{number}"

    @admin.display(description="what")
    def verb_label(self, entry: AuditEntry) -> SafeString:
        return badge(entry.verb, COLOURS, entry.get_verb_display())

    @admin.display(description="object")
    def object_label(self, entry: AuditEntry) -> SafeString | str:
        """Its name, as a link if the admin has a page for it."""
        model = model_of(entry)
        if model is None or not admin.site.is_registered(model):
            return entry.object_name or "-"
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[entry.object_id])
        return format_html('<a class="text-link" href="{}">{}</a>', url, entry.object_name)

    @admin.display(description="type of the object")
    def object_kind(self, entry: AuditEntry) -> str:
        model = model_of(entry)
        return f"{model._meta.verbose_name} #{entry.object_id}" if model else "-"

    @admin.display(description="tenant")
    def tenant_or_site(self, entry: AuditEntry) -> SafeString | str:
        return related(entry, "tenant") if entry.tenant_id else "the site"

    @admin.display(description="before")
    def values_before(self, entry: AuditEntry) -> SafeString | str:
        return as_text(entry.before)

    @admin.display(description="after")
    def values_after(self, entry: AuditEntry) -> SafeString | str:
        return as_text(entry.after)


def model_of(entry: AuditEntry) -> type[Model] | None:
    """The model of its object; None if there is no object, or the model is gone since."""
    try:
        return apps.get_model(entry.object_type) if entry.object_id else None
    except LookupError:
        return None


def as_text(values: dict[str, Any]) -> SafeString | str:
    if not values:
        return "-"
    return format_html('<pre class="code">{}</pre>', json.dumps(values, indent=2, ensure_ascii=False))


def represent(entry: AuditEntry) -> dict[str, Any]:
    row = {column: getattr(entry, column) for column in COLUMNS if column != "tenant"}
    return {column: row.get(column) for column in COLUMNS} | {"tenant": entry.tenant.slug if entry.tenant else None}


def as_cell(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return value.isoformat() if hasattr(value, "isoformat") else value


def record_export(request: HttpRequest, entries: list[AuditEntry]) -> None:
    """Record the export for each tenant with entries in it, and for the site if there are some that have none."""
    query = request.GET.urlencode()[:MAX_QUERY]
    counts: Counter[Tenant | None] = Counter(entry.tenant for entry in entries)
    audit.record_all(
        audit.entry(Verb.AUDIT_EXPORTED, tenant, after={"entries": count, "query": query})
        for tenant, count in counts.items()
    )


def whose_act(row: Model, *verbs: Verb) -> AuditEntry | None:
    """The entry about the making of `row`; None if it was made before there was an audit."""
    return acts_on([row], *verbs).get(row.pk)


def acts_on(rows: list[Any], *verbs: Verb) -> dict[int, AuditEntry]:
    """By their ids, the entries about the making of `rows`, which are of one model."""
    if not rows:
        return {}
    entries = AuditEntry.objects.filter(
        object_type=rows[0]._meta.label_lower, object_id__in=[row.pk for row in rows], verb__in=verbs
    )
    return {cast("int", entry.object_id): entry for entry in entries}


def who_and_where(entry: AuditEntry | None) -> SafeString | str:
    """Who did it and from where, as a link to the entry."""
    if entry is None:
        return "not recorded"
    source = f" from {entry.source}" if entry.source else ""
    return format_html('<a class="text-link" href="{}">{}</a>{}', page_of(entry), entry.actor, source)


def in_words(entry: AuditEntry | None) -> SafeString | str:
    """Who did it, from where and when, as a link to the entry."""
    return format_html("{}, {}", who_and_where(entry), exact(entry.at)) if entry else who_and_where(None)
