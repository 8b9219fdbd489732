"""`manage.py create_device TENANT NAME`."""

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.db import IntegrityError, transaction

from common.sequences import is_taken_id
from devices.models import Device, DeviceKey
from tenants.commands import AuditedCommand, explain, tenant_named


class Command(AuditedCommand):
    help = "Create a device with a device key, and print the key: it is shown only this once and not stored."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant", help="the tenant's slug")
        parser.add_argument("name", help="the device's name, unique in the tenant")
        parser.add_argument("--type", default="", help="what it is, such as edge-gateway")
        parser.add_argument("--location", default="", help="where it is")

    def handle(self, *args: Any, tenant: str, name: str, **options: Any) -> None:
        owner = tenant_named(tenant)
        device = Device(tenant=owner, name=name, type=options["type"], location=options["location"])
        try:
            device.clean_fields()
            with transaction.atomic():
                device.save()
                _, plaintext = DeviceKey.objects.issue(device)
        except ValidationError as error:
            raise CommandError(explain(error)) from error
        except IntegrityError as error:
            if is_taken_id(error):
                raise
            raise CommandError(
                f"Tenant {tenant} already has a device {name!r}, and its key can't be shown again. "
                "Issue or rotate a key for it in the admin, under Devices."
            ) from error
        self.stdout.write(plaintext)
