"""Which changes of tenants, members, users and groups of users are recorded."""

from typing import Any

from django.contrib.auth.models import Group, User
from django.db.models.signals import m2m_changed

from tenants.audit import Watch, watch_relation
from tenants.models import Membership, Module, Tenant, Verb


class UserWatch(Watch):
    def fields_in(self, row: Any, update_fields: Any) -> list[str]:
        """A login may hash the same password again, with better parameters: that sets none."""
        names = super().fields_in(row, update_fields)
        return [] if names == ["password"] and row._password is None else names


def permission_name(permission: Any) -> str:
    return f"{permission.content_type.app_label}.{permission.codename}"


def record_added_members(
    sender: Any, instance: Any, action: str, reverse: bool, pk_set: set[int] | None, **kwargs: Any
) -> None:
    """Django adds members through the relation without saving memberships one by one. It does delete them so."""
    if action == "post_add":
        mine, others = ("user", "tenant__in") if reverse else ("tenant", "user__in")
        for membership in Membership.objects.filter(**{mine: instance, others: pk_set}):
            MEMBERS.record_added(membership)


Watch(
    Tenant,
    added=Verb.TENANT_CREATED,
    changed=dict.fromkeys(
        ["slug", "name", *(f"{module}_enabled" for module in Module), "retention_days"], Verb.TENANT_CHANGED
    ),
)
MEMBERS = Watch(
    Membership,
    added=Verb.MEMBER_ADDED,
    changed=dict.fromkeys(["user", "role"], Verb.MEMBER_CHANGED),
    removed=Verb.MEMBER_REMOVED,
)
UserWatch(
    User,
    added=Verb.USER_CREATED,
    changed=dict.fromkeys(
        ["username", "first_name", "last_name", "email", "is_active", "is_staff", "is_superuser"], Verb.USER_CHANGED
    )
    | {"password": Verb.PASSWORD_SET},
    removed=Verb.USER_DELETED,
)
Watch(Group, added=Verb.GROUP_CREATED, changed={"name": Verb.GROUP_CHANGED}, removed=Verb.GROUP_DELETED)
m2m_changed.connect(record_added_members, sender=Tenant.members.through)
watch_relation(User.groups, Verb.USER_CHANGED)
watch_relation(User.user_permissions, Verb.USER_CHANGED, permission_name)
watch_relation(Group.permissions, Verb.GROUP_CHANGED, permission_name)
