"""What the commands of several rooms share."""

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError

from tenants.models import Tenant


def tenant_named(slug: str) -> Tenant:
    """Raises CommandError if there is none."""
    tenant = Tenant.objects.filter(slug=slug).first()
    if tenant is None:
        raise CommandError(f"There is no tenant {slug!r}. Create it with: manage.py create_tenant {slug}")
    return tenant


def explain(error: ValidationError) -> str:
    """A model's validation errors as one line."""
    return " ".join(f"{field}: {' '.join(messages)}" for field, messages in error.message_dict.items())
