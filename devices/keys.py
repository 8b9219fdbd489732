"""What all keys have in common: a secret that is shown once, and stored only as its SHA-256."""

import hashlib
import secrets
from datetime import datetime
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Q
from django.utils import timezone

from tenants.models import TenantOwnedQuerySet

PREFIX_LENGTH = 12


def key_digest(plaintext: str) -> str:
    """The digest that is stored for a key. A plain SHA-256 is enough: the key itself has 256 random bits."""
    return hashlib.sha256(plaintext.encode()).hexdigest()


def usable_at(moment: datetime, path: str = "") -> Q:
    """The condition for a usable key; `path` leads to the keys from another model, as `keys__` does."""
    not_expired = Q(**{f"{path}expires_at": None}) | Q(**{f"{path}expires_at__gt": moment})
    return not_expired & Q(**{f"{path}revoked_at": None})


class KeyQuerySet(TenantOwnedQuerySet):
    def usable(self, now: datetime | None = None) -> Self:
        return self.filter(usable_at(now or timezone.now()))

    def in_state(self, state: str) -> Self:
        """Keys whose `state`, one of the model's STATES, is this one; the database computes it."""
        now = timezone.now()
        wanted = {
            "active": usable_at(now),
            "expired": Q(expires_at__lte=now, revoked_at=None),
            "revoked": Q(revoked_at__isnull=False),
        }
        return self.filter(wanted[state])

    def issue_key(self, **fields: Any) -> tuple[Any, str]:
        """Make a key and return it with its plaintext, which exists nowhere else."""
        key, plaintext = self.new(**fields)
        key.save(force_insert=True)
        return key, plaintext

    def new(self, **fields: Any) -> tuple[Any, str]:
        """A key that is not stored as yet, with its plaintext."""
        plaintext = self.model.START + secrets.token_urlsafe(32)
        return self.model(prefix=plaintext[:PREFIX_LENGTH], digest=key_digest(plaintext), **fields), plaintext


class Key(models.Model):
    """A secret with an optional expiry. Revocation can't be undone."""

    START: ClassVar[str]  # how a plaintext begins, so that it is recognized wherever it turns up
    STATES: ClassVar[tuple[str, ...]] = ("active", "expired", "revoked")

    prefix = models.CharField(
        max_length=PREFIX_LENGTH, editable=False, help_text="How the key starts, to tell keys apart."
    )
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField("expires (UTC)", null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        abstract = True
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.prefix}…"

    @property
    def state(self) -> str:
        """One of STATES."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.is_usable(timezone.now()) else "expired"

    def is_usable(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)

    def revoke(self) -> None:
        """Refuse the key from now on. Revoking it again keeps the first time."""
        if self.revoked_at is None:
            self.revoked_at = timezone.now()
            self.save(update_fields=["revoked_at"])
