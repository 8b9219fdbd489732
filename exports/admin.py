"""Exports in the admin: begin one from a list, see how far it is, and download its files."""

from typing import Any, cast

from django.apps import apps
from django.contrib import admin, messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from exports.models import KEPT, Format, ListExport
from exports.reading import NotExportableError, pages_of, read
from exports.work import MEMBERSHIPS_CHANGED, first_line, scope
from tenants import audit
from tenants.admin.display import badge, exact
from tenants.admin.pages import TenantScoped
from tenants.models import Tenant, Verb

MAX_QUERY = 2000  # characters
MAX_RUNNING = 3  # of one user at the same time
COLOURS = {"waiting": None, "running": "info", "finished": "success", "incomplete": "warning"}


@admin.register(ListExport)
class ListExportAdmin(TenantScoped):
    is_exportable = False
    list_display = ("title", "state_label", "rows_read", "size", "created", "kept_until")
    list_display_links = ("title",)
    list_per_page = 50
    fields = (("list_name", "filters"), ("format", "state_label"), ("rows_read", "size"), ("created", "kept_until"))
    actions = None
    change_form_outer_after_template = "admin/exports/listexport/files.html"

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """All staff have exports of their own."""
        return request.user.is_active and cast("Any", request.user).is_staff

    has_module_permission = has_view_permission

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("start/", view(self.start), name="exports_listexport_start"),
            path("<int:number>/body/<int:file>/", view(self.download), name="exports_listexport_download"),
            *super().get_urls(),
        ]

    @method_decorator(require_POST)
    def start(self, request: HttpRequest) -> HttpResponse:
        """Begin to export a list as its address says. The worker does the rest."""
        label, query = request.POST.get("list", ""), request.POST.get("query", "")
        try:
            export = begin(request.user, label, query, request.POST.get("format", ""))
        except NotExportableError as error:
            self.message_user(request, f"{error} Nothing was exported.", messages.ERROR)
            return HttpResponseRedirect(reverse("admin:exports_listexport_changelist"))
        return HttpResponseRedirect(reverse("admin:exports_listexport_change", args=[export.pk]))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Without a link to a history: nobody changes an export."""
        return super().change_view(request, object_id, form_url, (extra_context or {}) | {"show_history": False})

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], **kwargs: Any) -> HttpResponse:
        export = context["original"]
        context["files"] = [
            (reverse("admin:exports_listexport_download", args=[export.pk, file]), file_name(export, file))
            for file in range(1, export.files + 1)
        ]
        return super().render_change_form(request, context, **kwargs)

    def download(self, request: HttpRequest, number: int, file: int) -> HttpResponse:
        """One file, whole. Whether its user may still see the list, of the same tenants, is asked again."""
        export = self.get_queryset(request).filter(pk=number, created_at__gt=timezone.now() - KEPT).first()
        if export is None or not 1 <= file <= export.files:
            raise Http404("There is no such file. Exports are kept for a day.")
        try:
            pages_of(export.model, request.user)
            if scope(request.user) != export.tenants:
                raise NotExportableError(MEMBERSHIPS_CHANGED)
        except NotExportableError as error:
            return HttpResponse(str(error), status=403, content_type="text/plain; charset=utf-8")
        parts = export.parts.filter(file=file).order_by("step").values_list("content", flat=True)
        content = first_line(export) + b"".join(bytes(part) for part in parts)
        record_download(export, file)
        response = HttpResponse(content, content_type=CONTENT_TYPES[Format(export.format)])
        response["Content-Disposition"] = f'attachment; filename="{file_name(export, file)}"'
        return response

    @admin.display(description="list")
    def title(self, export: ListExport) -> str:
        return f"{name_of(export).capitalize()} as {export.get_format_display()}"

    @admin.display(description="list")
    def list_name(self, export: ListExport) -> str:
        return name_of(export).capitalize()

    @admin.display(description="filters")
    def filters(self, export: ListExport) -> SafeString | str:
        app, name = export.model.split(".")
        url = reverse(f"admin:{app}_{name}_changelist")
        shown = export.query or "none"
        return format_html('<a class="text-link" href="{}?{}">{}</a>', url, export.query, shown)

    @admin.display(description="state")
    def state_label(self, export: ListExport) -> SafeString:
        return badge(export.state, COLOURS)

    @admin.display(description="rows", ordering="rows")
    def rows_read(self, export: ListExport) -> str:
        return f"{export.rows:,}"

    @admin.display(description="size", ordering="bytes")
    def size(self, export: ListExport) -> str:
        return filesizeformat(export.bytes)

    @admin.display(description="created", ordering="created_at")
    def created(self, export: ListExport) -> str:
        return exact(export.created_at)

    @admin.display(description="kept until")
    def kept_until(self, export: ListExport) -> str:
        return exact(export.expires_at)


CONTENT_TYPES = {Format.CSV: "text/csv; charset=utf-8", Format.JSON_LINES: "application/jsonl"}


def begin(user: Any, label: str, query: str, kind: str) -> ListExport:
    """Raises NotExportableError if the list can't be exported like this."""
    if kind not in Format.values:
        raise NotExportableError("There is no such format.")
    if len(query) > MAX_QUERY:
        raise NotExportableError(f"The address of the list has more than {MAX_QUERY:,} characters.")
    next(read(pages_of(label, user), user, query, ""))
    if ListExport.objects.filter(user=user, finished_at=None).count() >= MAX_RUNNING:
        raise NotExportableError(f"You have {MAX_RUNNING} exports that are not finished. Wait for one of them.")
    return ListExport.objects.create(user=user, model=label, query=query, format=kind, tenants=scope(user))


def name_of(export: ListExport) -> str:
    return str(apps.get_model(export.model)._meta.verbose_name_plural)


def file_name(export: ListExport, file: int) -> str:
    number = f"-{file}" if export.files > 1 else ""
    return f"{name_of(export).replace(' ', '-')}-{export.created_at:%Y%m%dT%H%M%SZ}{number}.{export.format}"


def record_download(export: ListExport, file: int) -> None:
    """Record it for each tenant that rows belong to, and for the site if there are others."""
    details = {"list": name_of(export), "file": file, "query": export.query}
    tenants = Tenant.objects.in_bulk([int(tenant) for tenant in export.counts])
    audit.record_all(
        audit.entry(Verb.LIST_EXPORTED, tenants[int(tenant)], after=details | {"rows": count})
        for tenant, count in export.counts.items()
        if int(tenant) in tenants
    )
    if others := export.rows - sum(export.counts.values()):
        audit.record(Verb.LIST_EXPORTED, after=details | {"rows": others})
