"""Devices from a CSV file: what is wrong with the file, which devices it would add, and adding them with their keys."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from django.core.exceptions import ValidationError

from common.spreadsheets import as_csv
from devices.models import Device, DeviceKey, device_watch
from tenants.models import Tenant

MAX_BYTES = 512 * 1024
MAX_ROWS = 1000
COLUMNS = ("name", "location", "type")
OTHER_FIELDS = {field.name for field in Device._meta.fields} - set(COLUMNS)
UTF16_STARTS = (b"\xff\xfe", b"\xfe\xff")
NOT_UTF8 = "This is not UTF-8. Save the file as “CSV UTF-8”."


class CellError(NamedTuple):
    """What is wrong, and where. `column` is empty if it is wrong with the whole line."""

    line: int
    column: str
    detail: str


class InvalidFileError(Exception):
    """Names everything that is wrong with a file."""

    def __init__(self, *errors: CellError) -> None:
        super().__init__(errors)
        self.errors = errors


class Row(NamedTuple):
    """A line of a file, with a device that is not stored as yet."""

    line: int
    device: Device
    exists: bool  # the tenant has a device of that name, which is left alone


@dataclass(frozen=True)
class Preview:
    """What importing a file for a tenant would do now."""

    tenant: Tenant
    text: str
    rows: list[Row]

    @property
    def new(self) -> list[Device]:
        return [row.device for row in self.rows if not row.exists]

    @property
    def existing_names(self) -> list[str]:
        return [row.device.name for row in self.rows if row.exists]


def preview(tenant: Tenant, data: bytes) -> Preview:
    """Raises InvalidFileError."""
    if data.startswith(UTF16_STARTS):
        raise InvalidFileError(CellError(1, "", NOT_UTF8))
    try:
        text, is_utf8 = data.decode("utf-8-sig"), True
    except UnicodeDecodeError:
        text, is_utf8 = data.decode("utf-8-sig", errors="replace"), False
    found = list(_devices(tenant, text))
    errors = list(_errors(found, is_utf8))
    if errors:
        raise InvalidFileError(*errors)
    names = [device.name for _, device in found]
    taken = set(Device.objects.filter(tenant=tenant, name__in=names).values_list("name", flat=True))
    return Preview(tenant, text, [Row(line, device, device.name in taken) for line, device in found])


def add(devices: list[Device]) -> list[tuple[DeviceKey, str]]:
    """Store these devices, and return a key for each with its plaintext, which exists nowhere else.

    Needs an open transaction. Raises IntegrityError if a name has been taken since the preview.
    """
    device_watch.record_all_added(Device.objects.bulk_create(devices))
    return DeviceKey.objects.issue_all(devices)


def key_file(issued: Iterable[tuple[DeviceKey, str]]) -> str:
    """The plaintexts of keys as CSV, which a spreadsheet opens without running anything."""
    rows = ((key.device.name, key.device_id, plaintext) for key, plaintext in issued)
    return as_csv(("name", "device_id", "device_key"), rows)


def _devices(tenant: Tenant, text: str) -> Iterator[tuple[int, Device]]:
    """Each device with its line, from the file's text. Raises InvalidFileError if the file has another form."""
    records = _records(text)
    columns = _columns(*next(records, (1, [])))
    count = 0
    for line, cells in records:
        if not any(cells):
            continue
        if len(cells) > len(columns):
            raise InvalidFileError(CellError(line, "", f"There are {len(cells)} cells, but {len(columns)} columns."))
        count += 1
        if count > MAX_ROWS:
            raise InvalidFileError(CellError(line, "", f"A file may have at most {MAX_ROWS} devices. Split it."))
        yield line, Device(tenant=tenant, **dict(zip(columns, cells, strict=False)))
    if not count:
        raise InvalidFileError(CellError(1, "", "There are no devices in this file, only its first line."))


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line, with its number. A cell in quotes may reach over several lines."""
    first, _, _ = text.partition("\n")
    delimiter = ";" if first.count(";") > first.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            yield line, [cell.strip() for cell in cells]
            line = reader.line_num + 1
    except csv.Error as error:
        raise InvalidFileError(CellError(line, "", f"This can't be read as CSV: {error}.")) from error


def _columns(line: int, cells: list[str]) -> list[str]:
    """The columns that the first line names, in any case and order. Raises InvalidFileError."""
    columns = [cell.lower() for cell in cells]
    expected = f"The first line names the columns: {', '.join(COLUMNS)}."
    errors = [CellError(line, column, f"Unknown column. {expected}") for column in columns if column not in COLUMNS]
    errors += [CellError(line, name, "This column is there twice.") for name in COLUMNS if columns.count(name) > 1]
    if "name" not in columns:
        errors.append(CellError(line, "name", f"This column is missing. {expected}"))
    if errors:
        raise InvalidFileError(*errors)
    return columns


def _errors(found: list[tuple[int, Device]], is_utf8: bool) -> Iterator[CellError]:
    lines: dict[str, int] = {}
    for line, device in found:
        for column in COLUMNS:
            if not is_utf8 and "\ufffd" in getattr(device, column):
                yield CellError(line, column, NOT_UTF8)
        try:
            device.clean_fields(exclude=OTHER_FIELDS)
        except ValidationError as error:
            for column in COLUMNS:
                yield from (CellError(line, column, detail) for detail in error.message_dict.get(column, ()))
        first = lines.setdefault(device.name, line)
        if device.name and first != line:
            yield CellError(line, "name", f"Line {first} has the same name.")
