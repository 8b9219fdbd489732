"""What the roles of members may do, as the database enforces it (tenants/migrations/0003_roles.py)."""

from contextlib import nullcontext

import pytest
from django.contrib.auth.models import User
from django.db import ProgrammingError

from alerts.models import AlertGroup, GroupChange, SuppressionRule
from tenants.isolation import acting_as
from tenants.models import Membership, Role, Tenant
from tests.support.servers import servers_only
from tests.support.side import Side

pytestmark = pytest.mark.django_db(transaction=True)

BY_ROLE = {Role.VIEWER: False, Role.ANALYST: True, Role.ADMIN: True}


@pytest.fixture
def side() -> Side:
    return Side("ours")


def member(side: Side, role: Role, name: str = "member") -> User:
    user = User.objects.create_user(name)
    Membership.objects.create(tenant=side.tenant, user=user, role=role)
    return user


@servers_only
@pytest.mark.parametrize("role", Role)
def test_viewers_change_no_group_and_no_rule(role, side):
    user = member(side, role)
    for rows in (AlertGroup.objects, SuppressionRule.objects):
        with acting_as(user):
            assert rows.count() == 1
            assert rows.update(tenant=side.tenant) == BY_ROLE[role]


@servers_only
@pytest.mark.parametrize("role", Role)
def test_nobody_rewrites_the_history_and_viewers_add_nothing_to_it(role, side):
    user = member(side, role)
    copy = GroupChange.objects.get()
    copy.pk, copy.field = None, GroupChange.Field.STATUS
    refused = nullcontext() if BY_ROLE[role] else pytest.raises(ProgrammingError, match="row-level security")
    with refused, acting_as(user):
        copy.save(force_insert=True)
    for change in (
        lambda: GroupChange.objects.update(after=""),
        lambda: GroupChange.objects.all()._raw_delete("default"),
    ):
        with pytest.raises(ProgrammingError, match="permission denied"), acting_as(user):
            change()


@servers_only
@pytest.mark.parametrize("role", Role)
def test_only_admins_of_the_tenant_change_its_members_and_never_its_superusers(role, side):
    user, other = member(side, role), member(side, Role.ANALYST, "other")
    root = User.objects.create_superuser("root")
    Membership.objects.create(tenant=side.tenant, user=root)
    may = role == Role.ADMIN
    with acting_as(user):
        assert Membership.objects.filter(user=other).update(role=Role.VIEWER) == may
        assert Membership.objects.filter(user=root).update(role=Role.VIEWER) == 0
        assert Membership.objects.filter(user=root)._raw_delete("default") == 0


@servers_only
def test_an_admin_of_one_tenant_changes_no_members_of_another(side):
    theirs = Side("theirs")
    user = member(side, Role.ADMIN)
    Membership.objects.create(tenant=theirs.tenant, user=user, role=Role.ANALYST)
    with acting_as(user):
        assert Membership.objects.filter(tenant=theirs.tenant, user=theirs.user).update(role=Role.VIEWER) == 0
    people = User.objects.create_user("another"), User.objects.create_superuser("root")
    for tenant, somebody in zip((theirs.tenant, side.tenant), people, strict=True):
        membership = Membership(tenant=tenant, user=somebody)
        with pytest.raises(ProgrammingError, match="row-level security"), acting_as(user):
            membership.save(force_insert=True)


def test_roles_decide_which_rows_a_query_finds(side):
    expected = {Role.VIEWER: (1, 0, 0), Role.ANALYST: (1, 1, 0), Role.ADMIN: (1, 1, 1)}
    for role, counts in expected.items():
        user = member(side, role, role.value)
        groups, tenants = AlertGroup.objects, Tenant.objects
        assert (
            groups.for_user(user).count(),
            groups.for_analyst(user).count(),
            tenants.for_admin(user).count(),
        ) == counts
    root = User.objects.create_superuser("root")
    assert Tenant.objects.for_admin(root).count() == 1
    root.is_active = False
    assert Tenant.objects.for_admin(root).count() == 0
