"""What the commands of several rooms share."""

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from tenants import audit
from tenants.models import Tenant


class AuditedCommand(BaseCommand):
    """A command that is recorded by its name as the one that acts, also if a program calls it."""

    def execute(self, *args: Any, **options: Any) -> Any:
        with audit.acting(audit.command(type(self).__module__.rpartition(".")[2])):
            return super().execute(*args, **options)


def tenant_named(slug: str) -> Tenant:
    """Raises CommandError if there is none."""
    tenant = Tenant.objects.filter(slug=slug).first()
    if tenant is None:
        raise CommandError(f"There is no tenant {slug!r}. Create it with: manage.py create_tenant {slug}")
    return tenant


def explain(error: ValidationError) -> str:
    """A model's validation errors as one line."""
    return " ".join(f"{field}: {' '.join(messages)}" for field, messages in error.message_dict.items())
