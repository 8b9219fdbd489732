"""Tenants, their modules and members, devices and device keys."""

import hashlib
import secrets
from datetime import datetime, timedelta

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

KEY_START = "dvc_"
KEY_PREFIX_LENGTH = 12
ONLINE_WITHIN = timedelta(minutes=5)
LAST_USE_EVERY = timedelta(minutes=1)


class Module(models.TextChoices):
    """What a tenant can have switched on."""

    VPN = "vpn", "VPN"
    SECURITY = "security", "Security"
    BACKUP = "backup", "Backup"


class TenantQuerySet(models.QuerySet["Tenant"]):
    def for_user(self, user) -> "TenantQuerySet":
        """The tenants whose alerts `user` may see: all for a superuser, else those they are a member of."""
        if not user.is_authenticated or not user.is_active:
            return self.none()
        return self if user.is_superuser else self.filter(members=user)


class Tenant(models.Model):
    """A customer: the wall that no event, alert or analyst crosses."""

    slug = models.SlugField(max_length=64, unique=True, help_text="Short name used in commands and filters.")
    name = models.CharField(max_length=200)
    vpn_enabled = models.BooleanField("VPN module", default=False)
    security_enabled = models.BooleanField("Security module", default=False)
    backup_enabled = models.BooleanField(
        "Backup module", default=False, help_text="Without it, batches with backup events are answered 403."
    )
    retention_days = models.PositiveIntegerField(
        "keep for days",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(36_500)],
        help_text="Events, and alerts that are resolved, are deleted this many days after they arrived. Empty: never.",
    )
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL,
        related_name="tenants",
        blank=True,
        help_text="Analysts who see this tenant's alerts. Superusers see every tenant.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = TenantQuerySet.as_manager()

    class Meta:
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


class DeviceQuerySet(models.QuerySet["Device"]):
    def seen(self, device_ids, now: datetime) -> None:
        """Note that devices sent something, in one update and at most once a minute each."""
        stale = Q(last_seen_at=None) | Q(last_seen_at__lt=now - LAST_USE_EVERY)
        self.filter(stale, pk__in=device_ids).update(last_seen_at=now)


class Device(models.Model):
    """An edge appliance. It belongs to one tenant and authenticates with its device keys."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="devices")
    name = models.CharField(max_length=200)
    type = models.CharField(max_length=100, blank=True)
    location = models.CharField(max_length=200, blank=True)
    events_per_second = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="What it may send in the long run, alerts not counted. 0: any. Empty: the site's limit.",
    )
    burst = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="How many events it may send at once before that limit holds. Empty: the site's limit.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    last_seen_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = DeviceQuerySet.as_manager()

    class Meta:
        ordering = ["tenant__slug", "name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="device_name_unique_in_tenant")]

    def __str__(self) -> str:
        return self.name

    @property
    def is_online(self) -> bool:
        return self.last_seen_at is not None and self.last_seen_at > timezone.now() - ONLINE_WITHIN


def key_digest(plaintext: str) -> str:
    """What is stored of a device key. A plain SHA-256 is enough: the key has 256 random bits of its own."""
    return hashlib.sha256(plaintext.encode()).hexdigest()


def usable_at(moment: datetime, path: str = "") -> Q:
    """The condition of a usable key; `path` leads to the keys from another model, as `keys__` does."""
    endless_or_later = Q(**{f"{path}expires_at": None}) | Q(**{f"{path}expires_at__gt": moment})
    return endless_or_later & Q(**{f"{path}revoked_at": None})


class DeviceKeyQuerySet(models.QuerySet["DeviceKey"]):
    def usable(self, now: datetime | None = None) -> "DeviceKeyQuerySet":
        return self.filter(usable_at(now or timezone.now()))

    def used(self, key_ids, now: datetime) -> None:
        """Note that keys were used, in one update and at most once a minute each."""
        stale = Q(last_used_at=None) | Q(last_used_at__lt=now - LAST_USE_EVERY)
        self.filter(stale, pk__in=key_ids).update(last_used_at=now)

    def issue(self, device: Device, expires_at: datetime | None = None) -> tuple["DeviceKey", str]:
        """Make a key for `device` and return it with its plaintext, which exists nowhere else."""
        plaintext = KEY_START + secrets.token_urlsafe(32)
        key = self.create(
            device=device,
            prefix=plaintext[:KEY_PREFIX_LENGTH],
            digest=key_digest(plaintext),
            expires_at=expires_at,
        )
        return key, plaintext


class DeviceKey(models.Model):
    """The secret that identifies one device. Only its SHA-256 is stored; revocation is one way."""

    device = models.ForeignKey(Device, on_delete=models.PROTECT, related_name="keys")
    prefix = models.CharField(max_length=KEY_PREFIX_LENGTH, help_text="How the key starts, to tell it from others.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = DeviceKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.prefix}…"

    @property
    def state(self) -> str:
        """`revoked`, `expired` or `active`."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.is_usable(timezone.now()) else "expired"

    def is_usable(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)

    def revoke(self) -> None:
        """Refuse the key from now on. Revoking twice keeps the first moment."""
        if self.revoked_at is None:
            self.revoked_at = timezone.now()
            self.save(update_fields=["revoked_at"])

    def rotate(self, overlap: timedelta) -> tuple["DeviceKey", str]:
        """Issue a successor; this key stays good for `overlap`, so that the device can be changed over."""
        end = timezone.now() + overlap
        if self.expires_at is None or self.expires_at > end:
            self.expires_at = end
            self.save(update_fields=["expires_at"])
        return DeviceKey.objects.issue(self.device)
