"""`manage.py create_provisioning_key TENANT LABEL`."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.utils import timezone

from devices.models import ProvisioningKey
from tenants.commands import AuditedCommand, explain, tenant_named


class Command(AuditedCommand):
    help = (
        "Create a key with which devices register themselves, and print it: it is shown only this once and not stored."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant", help="the tenant's slug")
        parser.add_argument("label", help="what it is for, such as the site or the delivery")
        parser.add_argument("--uses", type=int, default=1, help="how many devices may register with it (default: 1)")
        parser.add_argument("--days", type=int, help="days that it is valid (default: until it is used up)")

    def handle(self, *args: Any, tenant: str, label: str, uses: int, days: int | None, **options: Any) -> None:
        owner = tenant_named(tenant)
        if days is not None and not 1 <= days <= 36_500:
            raise CommandError("--days must be between 1 and 36500.")
        try:
            ProvisioningKey(tenant=owner, label=label, usage_limit=uses).clean_fields(exclude=["prefix", "digest"])
        except ValidationError as error:
            raise CommandError(explain(error).replace("usage_limit:", "--uses:")) from error
        expires_at = None if days is None else timezone.now() + timedelta(days=days)
        _, plaintext = ProvisioningKey.objects.issue(owner, label, uses, expires_at)
        self.stdout.write(plaintext)
