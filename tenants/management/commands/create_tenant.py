"""`manage.py create_tenant SLUG`."""

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.db import IntegrityError, transaction

from common.sequences import is_taken_id
from tenants.commands import AuditedCommand, explain
from tenants.models import Module, Tenant


class Command(AuditedCommand):
    help = "Create a tenant, or enable more modules of an existing one. No module is ever disabled."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("slug", help="short name: letters, digits, - and _")
        parser.add_argument("--name", help="name for people (default: the slug)")
        parser.add_argument(
            "--module", action="append", default=[], choices=Module.values, help="module to enable; repeatable"
        )
        parser.add_argument("--retention-days", type=int, help="days after which events are deleted (default: never)")

    def handle(
        self, *args: Any, slug: str, name: str | None, module: list[str], retention_days: int | None, **options: Any
    ) -> None:
        tenant = Tenant.objects.filter(slug=slug).first()
        done = "already exists" if tenant else "created"
        tenant = tenant or Tenant(slug=slug, name=slug)
        tenant.name = name or tenant.name
        if retention_days is not None:
            tenant.retention_days = retention_days
        for each in module:
            tenant.enable_module(each)
        try:
            tenant.clean_fields()
            with transaction.atomic():
                tenant.save()
        except ValidationError as error:
            raise CommandError(explain(error)) from error
        except IntegrityError as error:
            if is_taken_id(error):
                raise
            raise CommandError(f"Tenant {slug} has just been created. Run this again to change it.") from error
        modules = ", ".join(tenant.modules) or "none"
        self.stdout.write(f"Tenant {tenant.slug} ({tenant.name}) {done}; modules: {modules}.")
