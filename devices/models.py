"""Devices, the keys they send with, and the keys they register with."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.core.validators import MinValueValidator
from django.db import models, transaction
from django.db.models import F, Q
from django.utils import timezone

from common.text import printable
from devices.keys import Key, KeyQuerySet
from tenants import audit
from tenants.models import Tenant, TenantOwned, TenantOwnedQuerySet, Verb

ONLINE_WITHIN = timedelta(minutes=5)  # since a device was last seen
LAST_USE_EVERY = timedelta(minutes=1)  # between two notes of a device's or a key's last use: each is a write


class DeviceQuerySet(TenantOwnedQuerySet):
    def seen(self, device_ids: Iterable[int], now: datetime) -> None:
        """Note that devices sent something, in one update and at most once a minute each."""
        stale = Q(last_seen_at=None) | Q(last_seen_at__lt=now - LAST_USE_EVERY)
        self.filter(stale, pk__in=device_ids).update(last_seen_at=now)


class Device(models.Model):
    """An edge appliance. It belongs to one tenant and authenticates with its device keys."""

    # Without an index of its own: that of the constraint begins with it.
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False, related_name="devices")
    name = models.CharField(max_length=200, validators=[printable])
    type = models.CharField(max_length=100, blank=True, validators=[printable])
    location = models.CharField(max_length=200, blank=True, validators=[printable])
    events_per_second = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Long-run limit, not counting alerts. 0: no limit. Empty: the site's limit.",
    )
    burst = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="How many events it may send at once before that limit applies. Empty: the site's limit.",
    )
    registered_with = models.ForeignKey(
        "ProvisioningKey", on_delete=models.PROTECT, null=True, editable=False, related_name="devices"
    )
    # Of the Idempotency-Key that it registered with: anyone who knows that key may repeat the registration.
    registration_digest = models.CharField(max_length=64, null=True, editable=False)
    # The database's own default was for servers from before the column, which may run during an upgrade. To drop it
    # would take a migration.
    registration_repeats = models.PositiveSmallIntegerField(default=0, db_default=0, editable=False)
    registration_repeated_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    last_seen_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = DeviceQuerySet.as_manager()

    class Meta:
        db_table = "devices"
        ordering = ["tenant__slug", "name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="devices_name_unique_in_tenant")]

    def __str__(self) -> str:
        return self.name

    @property
    def is_online(self) -> bool:
        return self.last_seen_at is not None and self.last_seen_at > timezone.now() - ONLINE_WITHIN


class SentByDevice(TenantOwned):
    """A row sent by a device, in a table that grows with every batch. Foreign keys are unchecked, as in TenantOwned."""

    device = models.ForeignKey(
        Device, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )

    class Meta(TenantOwned.Meta):
        abstract = True


class DeviceKeyQuerySet(KeyQuerySet):
    tenant_path = "device__tenant"

    def used(self, key_ids: Iterable[int], now: datetime) -> None:
        """Note that keys were used, in one update and at most once a minute each."""
        stale = Q(last_used_at=None) | Q(last_used_at__lt=now - LAST_USE_EVERY)
        self.filter(stale, pk__in=key_ids).update(last_used_at=now)

    def issue(self, device: Device, expires_at: datetime | None = None) -> tuple["DeviceKey", str]:
        """Make a key for `device` and return it with its plaintext, which exists nowhere else."""
        return self.issue_key(device=device, expires_at=expires_at)

    def issue_all(self, devices: Iterable[Device]) -> list[tuple["DeviceKey", str]]:
        """Make a key for each of `devices`, in one statement, and return them with their plaintexts.

        Needs an open transaction.
        """
        issued = [self.new(device=device) for device in devices]
        keys = self.bulk_create(key for key, _ in issued)
        device_key_watch.record_all_added(keys)
        return issued


class DeviceKey(Key):
    """The secret that identifies one device."""

    START = "dvc_"

    device = models.ForeignKey(Device, on_delete=models.PROTECT, related_name="keys")

    objects = DeviceKeyQuerySet.as_manager()

    class Meta(Key.Meta):
        db_table = "device_keys"

    @property
    def owner(self) -> Device:
        """The object whose history also records what happens to the key."""
        return self.device

    def rotate(self, overlap: timedelta) -> tuple["DeviceKey", str]:
        """Issue a successor. This key stays valid for `overlap`, so that the device can be switched over."""
        before, end = self.expires_at, timezone.now() + overlap
        with transaction.atomic():
            if before is None or before > end:
                self.expires_at = end
                self.save(update_fields=["expires_at"])
            successor, plaintext = DeviceKey.objects.issue(self.device)
            after = {"expires_at": self.expires_at, "successor": str(successor)}
            audit.record(Verb.DEVICE_KEY_ROTATED, self, before={"expires_at": before}, after=after)
        return successor, plaintext


class ProvisioningKeyQuerySet(KeyQuerySet):
    def in_state(self, state: str) -> "ProvisioningKeyQuerySet":
        left = Q(use_count__lt=F("usage_limit"))
        if state == "used up":
            return super().in_state("active").exclude(left)
        found = super().in_state(state)
        return found.filter(left) if state == "active" else found

    def use(self, key: "ProvisioningKey") -> bool:
        """Count one use of `key`, in the open transaction. Returns False if it has none left or is not usable.

        A single update checks and counts: of two uses at the same moment, the second waits for the first to end.
        """
        left = self.usable().filter(pk=key.pk, use_count__lt=F("usage_limit"))
        return left.update(use_count=F("use_count") + 1, last_used_at=timezone.now()) == 1

    def issue(
        self, tenant: Tenant, label: str, usage_limit: int = 1, expires_at: datetime | None = None
    ) -> tuple["ProvisioningKey", str]:
        """Make a key for devices of `tenant` and return it with its plaintext, which exists nowhere else."""
        return self.issue_key(tenant=tenant, label=label, usage_limit=usage_limit, expires_at=expires_at)


class ProvisioningKey(Key):
    """The secret with which new devices of a tenant register themselves, up to a set number of devices."""

    START = "prv_"
    STATES = (*Key.STATES, "used up")

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="provisioning_keys")
    label = models.CharField(
        max_length=200, validators=[printable], help_text="What it is for, such as the site or the delivery."
    )
    usage_limit = models.PositiveIntegerField(
        default=1, validators=[MinValueValidator(1)], help_text="How many devices may register with it."
    )
    use_count = models.PositiveIntegerField(default=0, editable=False)

    objects = ProvisioningKeyQuerySet.as_manager()

    class Meta(Key.Meta):
        db_table = "provisioning_keys"

    @property
    def owner(self) -> Tenant:
        """The object whose history also records what happens to the key."""
        return self.tenant

    @property
    def state(self) -> str:
        state = super().state
        return "used up" if state == "active" and self.use_count >= self.usage_limit else state


def how_added(device: Device) -> Verb:
    return Verb.DEVICE_REGISTERED if device.registered_with_id else Verb.DEVICE_CREATED


device_watch = audit.Watch(
    Device,
    added=how_added,
    changed=dict.fromkeys(["name", "type", "location", "events_per_second", "burst"], Verb.DEVICE_CHANGED),
    details=["registered_with"],
)
device_key_watch = audit.Watch(
    DeviceKey,
    added=Verb.DEVICE_KEY_ISSUED,
    changed={"revoked_at": Verb.DEVICE_KEY_REVOKED},
    details=["device", "expires_at"],
)
audit.Watch(
    ProvisioningKey,
    added=Verb.PROVISIONING_KEY_ISSUED,
    changed={"revoked_at": Verb.PROVISIONING_KEY_REVOKED},
    details=["label", "usage_limit", "expires_at"],
)
