"""`manage.py create_device TENANT NAME`."""

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from devices.models import Device, DeviceKey
from tenants.management.commands.create_tenant import explain
from tenants.models import Tenant


class Command(BaseCommand):
    help = "Create a device with a device key, and print the key: it is shown only this once and not stored."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant", help="the tenant's slug")
        parser.add_argument("name", help="the device's name, unique in the tenant")
        parser.add_argument("--type", default="", help="what it is, such as edge-gateway")
        parser.add_argument("--location", default="", help="where it is")

    def handle(self, *args: Any, tenant: str, name: str, **options: Any) -> None:
        owner = Tenant.objects.filter(slug=tenant).first()
        if owner is None:
            raise CommandError(f"There is no tenant {tenant!r}. Create it with: manage.py create_tenant {tenant}")
        device = Device(tenant=owner, name=name, type=options["type"], location=options["location"])
        try:
            device.clean_fields()
        except ValidationError as error:
            raise CommandError(explain(error)) from error
        if owner.devices.filter(name=name).exists():
            raise CommandError(
                f"Tenant {tenant} already has a device {name!r}, and its key can't be shown again. "
                "Issue or rotate a key for it in the admin, under Devices."
            )
        with transaction.atomic():
            device.save()
            _, plaintext = DeviceKey.objects.issue(device)
        self.stdout.write(plaintext)
