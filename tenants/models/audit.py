"""The audit: what people and commands did."""

from typing import Self

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import Q
from django.utils import timezone

from tenants.models.tenants import Tenant, TenantOwnedQuerySet


class ActorKind(models.TextChoices):
    USER = "user", "User"
    COMMAND = "command", "Command"
    PROVISIONING_KEY = "provisioning_key", "Provisioning key"
    NOBODY = "nobody", "Nobody"


class Verb(models.TextChoices):
    """What can be done. Triage of groups is not here: it has a history of its own (`GroupChange`)."""

    SIGNED_IN = "signed_in", "Signed in"
    SIGN_IN_FAILED = "sign_in_failed", "Failed to sign in"
    SIGNED_OUT = "signed_out", "Signed out"
    TENANT_CREATED = "tenant_created", "Created a tenant"
    TENANT_CHANGED = "tenant_changed", "Changed a tenant"
    MEMBER_ADDED = "member_added", "Added a member"
    MEMBER_CHANGED = "member_changed", "Changed a member"
    MEMBER_REMOVED = "member_removed", "Removed a member"
    USER_CREATED = "user_created", "Created a user"
    USER_CHANGED = "user_changed", "Changed a user"
    USER_DELETED = "user_deleted", "Deleted a user"
    PASSWORD_SET = "password_set", "Set a password"
    GROUP_CREATED = "group_created", "Created a group of users"
    GROUP_CHANGED = "group_changed", "Changed a group of users"
    GROUP_DELETED = "group_deleted", "Deleted a group of users"
    DEVICE_CREATED = "device_created", "Created a device"
    DEVICE_REGISTERED = "device_registered", "Registered a device"
    DEVICE_CHANGED = "device_changed", "Changed a device"
    DEVICE_KEY_ISSUED = "device_key_issued", "Issued a device key"
    DEVICE_KEY_ROTATED = "device_key_rotated", "Rotated a device key"
    DEVICE_KEY_REVOKED = "device_key_revoked", "Revoked a device key"
    PROVISIONING_KEY_ISSUED = "provisioning_key_issued", "Issued a provisioning key"
    PROVISIONING_KEY_REVOKED = "provisioning_key_revoked", "Revoked a provisioning key"
    SUPPRESSION_RULE_MADE = "suppression_rule_made", "Made a suppression rule"
    SUPPRESSION_RULE_ENDED = "suppression_rule_ended", "Ended a suppression rule"
    REJECTED_BATCH_SENT_AGAIN = "rejected_batch_sent_again", "Sent a rejected batch again"
    REJECTED_BATCH_DOWNLOADED = "rejected_batch_downloaded", "Downloaded a rejected batch"
    ALERTS_EXPORTED = "alerts_exported", "Exported groups of alerts"
    LIST_EXPORTED = "list_exported", "Exported a list"
    AUDIT_EXPORTED = "audit_exported", "Exported the audit"


# The only entries that are ever deleted. The migration says the same to the database, which refuses to delete others.
SIGN_INS = (Verb.SIGNED_IN, Verb.SIGN_IN_FAILED, Verb.SIGNED_OUT)


class AuditEntryQuerySet(TenantOwnedQuerySet):
    """`for_user` shows the entries of the site, which have no tenant, to superusers only."""

    def about(self, label: str, pk: int) -> Self:
        """What was done to an object, or to something that it owns: the keys of a device, the members of a tenant."""
        return self.filter(Q(object_type=label, object_id=pk) | Q(owner_type=label, owner_id=pk))


class AuditEntry(models.Model):
    """One thing that somebody did. `tenants.audit` makes them; the database refuses to change or delete one.

    Names are copied and no key is checked by the database: an entry outlives the user and the object that it names.
    """

    at = models.DateTimeField(default=timezone.now, help_text="Our clock.")
    actor_kind = models.CharField("who", max_length=16, choices=ActorKind.choices)
    actor_id = models.BigIntegerField(null=True)
    actor_name = models.TextField(blank=True)
    source = models.GenericIPAddressField(null=True, help_text="The address that the request came from.")
    request_id = models.CharField(max_length=64, blank=True, help_text="The X-Request-ID that the proxy gave it.")
    tenant = models.ForeignKey(
        Tenant,
        on_delete=models.DO_NOTHING,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
        help_text="None for what belongs to the site.",
    )
    verb = models.CharField("what", max_length=32, choices=Verb.choices)
    object_type = models.CharField(max_length=64, blank=True, help_text="A model, such as devices.device.")
    object_id = models.BigIntegerField(null=True)
    object_name = models.TextField(blank=True, help_text="As it was then.")
    owner_type = models.CharField(max_length=64, blank=True, help_text="What the object belongs to.")
    owner_id = models.BigIntegerField(null=True)
    before = models.JSONField(default=dict, encoder=DjangoJSONEncoder, help_text="Only what changed.")
    after = models.JSONField(default=dict, encoder=DjangoJSONEncoder)

    objects = AuditEntryQuerySet.as_manager()

    class Meta:
        db_table = "audit_entries"
        ordering = ["-id"]
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(fields=["object_type", "object_id"], name="audit_entries_object"),
            models.Index(fields=["owner_type", "owner_id"], name="audit_entries_owner"),
            models.Index(fields=["tenant", "id"], name="audit_entries_tenant"),
            models.Index(fields=["at"], condition=Q(verb__in=SIGN_INS), name="audit_entries_sign_ins"),
        ]

    def __str__(self) -> str:
        return f"{self.actor}: {self.get_verb_display()}"

    @property
    def actor(self) -> str:
        """Who did it, in words."""
        kind = ActorKind(self.actor_kind)
        if kind == ActorKind.USER:
            return self.actor_name
        return f"{kind.label} {self.actor_name}".strip()
