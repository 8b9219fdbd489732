"""Staff pages of tenants, and what the pages of all rooms share."""

from tenants.admin import audit, tenants  # noqa: F401  registers them
