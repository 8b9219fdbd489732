"""Tenants with their members, and the audit."""

from tenants.models.audit import ActorKind, AuditEntry, AuditEntryQuerySet, Verb
from tenants.models.tenants import (
    Membership,
    Module,
    Role,
    Tenant,
    TenantOwned,
    TenantOwnedQuerySet,
    TenantQuerySet,
)

__all__ = [
    "ActorKind",
    "AuditEntry",
    "AuditEntryQuerySet",
    "Membership",
    "Module",
    "Role",
    "Tenant",
    "TenantOwned",
    "TenantOwnedQuerySet",
    "TenantQuerySet",
    "Verb",
]
