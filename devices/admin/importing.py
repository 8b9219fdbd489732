"""Importing devices from a CSV file: the file, a preview, and their keys, once, as a file.

Nothing is kept between the steps: the preview's own form carries the file, signed. So a file is never stored, any
server can take the next step, and what is imported is what was shown.
"""

from base64 import b64encode
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.core import signing
from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils import timezone
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminSelectWidget

from common.sequences import is_taken_id
from devices.importing import COLUMNS, MAX_BYTES, MAX_ROWS, InvalidFileError, Preview, add, key_file, preview
from devices.models import DeviceKey
from tenants.admin.display import badge
from tenants.admin.pages import page
from tenants.models import Tenant

IMPORT_PAGE = "admin:devices_device_import_devices"
SALT = "devices.import"
PREVIEW_SECONDS = 3600  # how long a preview can be confirmed
MAX_ERRORS = 100  # shown
ROW_COLOURS = {"new": "success", "exists": None}


class ImportForm(forms.Form):
    tenant = forms.ModelChoiceField(Tenant.objects.none(), widget=UnfoldAdminSelectWidget)
    file = forms.FileField(
        widget=UnfoldAdminFileFieldWidget({"accept": ".csv,text/csv"}),
        help_text=f"At most {MAX_ROWS} devices and {filesizeformat(MAX_BYTES)}.",
    )

    def __init__(self, user: Any, *args: Any) -> None:
        super().__init__(*args)
        cast("forms.ModelChoiceField", self.fields["tenant"]).queryset = Tenant.objects.for_user(user)

    def clean_file(self) -> UploadedFile:
        file = self.cleaned_data["file"]
        if file.size > MAX_BYTES:
            raise forms.ValidationError(f"The file has {filesizeformat(file.size)}. Split it.")
        return file


class ImportsDevices(ModelAdmin):
    """The part of the list of devices that imports them."""

    actions_list = ("import_devices",)

    def has_import_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """As for a single device that is added and given a key."""
        return self.has_add_permission(request) and self.has_issue_permission(request)

    @action(description="Import from CSV", url_path="import", icon="upload_file", permissions=["import"])
    def import_devices(self, request: HttpRequest) -> HttpResponse:
        if "preview" in request.POST:
            return self._import(request)
        form = ImportForm(request.user, *([request.POST, request.FILES] if request.method == "POST" else []))
        errors: tuple[Any, ...] = ()
        if form.is_valid():
            try:
                found = preview(form.cleaned_data["tenant"], form.cleaned_data["file"].read())
                return self._preview_page(request, found)
            except InvalidFileError as error:
                errors = error.errors
        return page(
            request, self, "admin/devices/device/import.html",
            title="Import devices", form=form, errors=errors[:MAX_ERRORS], more_errors=len(errors[MAX_ERRORS:]),
            columns=COLUMNS, back_url=reverse("admin:devices_device_changelist"),
        )  # fmt: skip

    def _preview_page(self, request: HttpRequest, found: Preview, has_changed: bool = False) -> HttpResponse:
        shown = {"user": request.user.pk, "tenant": found.tenant.pk, "text": found.text, "exist": found.existing_names}
        rows = [(row, badge("exists" if row.exists else "new", ROW_COLOURS)) for row in found.rows]
        return page(
            request, self, "admin/devices/device/import_preview.html",
            title="Import devices: preview", found=found, rows=rows, has_changed=has_changed,
            signed=signing.dumps(shown, salt=SALT, compress=True), back_url=reverse(IMPORT_PAGE),
        )  # fmt: skip

    def _import(self, request: HttpRequest) -> HttpResponse:
        """Add what the preview showed, all or nothing. If that is no longer what would be added, show it anew."""
        try:
            shown = signing.loads(request.POST["preview"], salt=SALT, max_age=PREVIEW_SECONDS)
            tenant = Tenant.objects.for_user(request.user).get(pk=shown["tenant"])
            found = preview(tenant, shown["text"].encode())
        except (signing.BadSignature, Tenant.DoesNotExist, InvalidFileError):  # the rules for files may have changed
            return self._begin_again(request)
        if shown["user"] != request.user.pk:
            return self._begin_again(request)
        if found.new and found.existing_names == shown["exist"]:
            try:
                with transaction.atomic():
                    issued = add(found.new)
            except IntegrityError as error:  # another request has just taken a name
                if is_taken_id(error):
                    raise
                found = preview(tenant, shown["text"].encode())
            else:
                return self._keys_page(request, found, issued)
        return self._preview_page(request, found, has_changed=True)

    def _begin_again(self, request: HttpRequest) -> HttpResponse:
        self.message_user(request, "This preview is no longer valid. Choose the file again.", messages.ERROR)
        return HttpResponseRedirect(reverse(IMPORT_PAGE))

    def _keys_page(self, request: HttpRequest, found: Preview, issued: list[tuple[DeviceKey, str]]) -> HttpResponse:
        """The only page that has these plaintexts. No cache may keep it."""
        file = b64encode(key_file(issued).encode()).decode()
        response = page(
            request, self, "admin/devices/device/imported.html",
            title="Devices imported", tenant=found.tenant, count=len(issued), left_alone=len(found.existing_names),
            file_url=f"data:text/csv;charset=utf-8;base64,{file}",
            file_name=f"device-keys-{found.tenant.slug}-{timezone.now():%Y-%m-%d-%H%M}.csv",
        )  # fmt: skip
        response["Cache-Control"] = "no-store"
        return response
