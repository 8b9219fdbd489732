"""Tenants, their modules and members, and the base of every row that belongs to a tenant."""

from typing import Any, ClassVar, Self

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from common.text import printable


class Module(models.TextChoices):
    """A part of the product that a tenant can have enabled."""

    VPN = "vpn", "VPN"
    SECURITY = "security", "Security"
    BACKUP = "backup", "Backup"


class TenantOwnedQuerySet(models.QuerySet[Any]):
    """For models whose rows belong to a tenant. `tenant_path` leads to it, `pk` in the tenant's own model."""

    tenant_path: ClassVar[str] = "tenant"

    def for_user(self, user: Any) -> Self:
        """The rows `user` may see: all for a superuser, else those of the tenants they are a member of."""
        return self._of(user, Membership.objects.all())

    def for_analyst(self, user: Any) -> Self:
        """The rows of which `user` may triage the alerts: those of tenants in which they are an analyst or an admin."""
        return self._of(user, Membership.objects.filter(role__in=[Role.ANALYST, Role.ADMIN]))

    def for_admin(self, user: Any) -> Self:
        """The rows of the tenants whose members `user` may manage."""
        return self._of(user, Membership.objects.filter(role=Role.ADMIN))

    def _of(self, user: Any, memberships: "models.QuerySet[Membership]") -> Self:
        if not user.is_authenticated or not user.is_active:
            return self.none()
        if user.is_superuser:
            return self
        return self.filter(**{f"{self.tenant_path}__in": memberships.filter(user=user).values("tenant")})


class TenantQuerySet(TenantOwnedQuerySet):
    tenant_path = "pk"


class Tenant(models.Model):
    """A customer: the boundary that no event, alert or analyst crosses."""

    slug = models.SlugField(max_length=64, unique=True, help_text="Short name used in commands and filters.")
    name = models.CharField(max_length=200, validators=[printable])
    vpn_enabled = models.BooleanField("VPN module", default=False)
    security_enabled = models.BooleanField("Security module", default=False)
    backup_enabled = models.BooleanField(
        "Backup module", default=False, help_text="Without it, batches with backup events are answered 403."
    )
    retention_days = models.PositiveIntegerField(
        "days to keep events",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(36_500)],
        help_text="Events and the alerts of closed groups are deleted this many days after they arrived. Empty: never.",
    )
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, through="Membership", related_name="tenants", blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = TenantQuerySet.as_manager()

    class Meta:
        db_table = "tenants"
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.name

    def has_module(self, module: str) -> bool:
        return getattr(self, f"{module}_enabled")

    def enable_module(self, module: str) -> None:
        setattr(self, f"{module}_enabled", True)

    @property
    def modules(self) -> list[Module]:
        return [module for module in Module if self.has_module(module)]


class Role(models.TextChoices):
    """What a member may do for their tenant."""

    VIEWER = "viewer", "Viewer"
    ANALYST = "analyst", "Analyst"
    ADMIN = "admin", "Admin of the tenant"


class Membership(models.Model):
    """A user who sees the alerts of a tenant. Superusers see every tenant without one."""

    # Without an index of its own: that of the constraint begins with it.
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.ANALYST)

    objects = TenantOwnedQuerySet.as_manager()

    class Meta:
        db_table = "memberships"
        ordering = ["tenant__slug", "user__username"]
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="memberships_once")]

    def __str__(self) -> str:
        return f"{self.user} of {self.tenant}"

    @property
    def owner(self) -> Tenant:
        """The object whose history also has what happens to the membership."""
        return self.tenant


class TenantOwned(models.Model):
    """A row of a table that is too large for foreign keys checked by the database: each costs more than all our work.

    Tenants are never deleted, so the key always leads to one.
    """

    tenant = models.ForeignKey(
        Tenant, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )

    objects = TenantOwnedQuerySet.as_manager()

    class Meta:
        abstract = True
