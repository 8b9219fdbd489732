"""What people do about groups of alerts: operations on one or many, which can be repeated and undone."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from alerts.models import AlertGroup, GroupChange, Status
from alerts.order import next_revisions, take_turn
from common.problems import Conflict
from tenants.isolation import bypass_isolation
from tenants.models import Membership, Role

Field = GroupChange.Field
Identity = tuple[int, bytes]  # of the alerts of a group: its tenant and fingerprint
UNDOABLE = (Field.STATUS, Field.DISPOSITION, Field.ASSIGNEE)  # notes stay: history is only added to


@dataclass(frozen=True)
class Person:
    """Somebody whom groups can be assigned to."""

    pk: int | None
    name: str


@dataclass(frozen=True)
class Wish:
    """What a group should become. None leaves a field as it is."""

    status: str | None = None
    disposition: str | None = None
    assignee: Person | None = None  # with no key: nobody
    note: str | None = None


@dataclass(frozen=True)
class Refusal:
    group_id: int
    code: str
    detail: str


@dataclass
class Outcome:
    """What an operation did: ids of groups that have changed, groups that others changed before, and refusals."""

    changed: list[int] = field(default_factory=list)
    stale: list[int] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


REFUSALS = {
    "not_found": "There is no such group.",
    "forbidden": "You may look at this group, but not change it.",
    "newer_group_open": "It stays closed: its alerts have a newer group that is open.",
    "not_assignable": "This person may not triage the alerts of this tenant.",
}


class Operation:
    """One operation of `user`: what it changes is written with `apply`, within a transaction that has its turn."""

    def __init__(self, user: Any, operation: UUID, undoes: UUID | None = None) -> None:
        self.user, self.id, self.undoes = user, operation, undoes
        self.now = timezone.now()
        self.outcome = Outcome()
        self._groups: list[AlertGroup] = []
        self._changes: list[GroupChange] = []

    def was_done(self) -> bool:
        """Whether it is a repeat. Raises Conflict if the id belongs to another user's operation."""
        with bypass_isolation():  # of any tenant
            done = GroupChange.objects.filter(operation=self.id).values_list("user", "group")
            if not done:
                return False
        if any(user_id != self.user.pk for user_id, _ in done):
            raise Conflict("operation_taken", "This operation was done by somebody else. Make a new id.")
        self.outcome.changed = sorted({group_id for _, group_id in done})
        return True

    def load(self, ids: Iterable[int]) -> list[AlertGroup]:
        """The groups with these ids that the user may change; the others are refused."""
        ids = set(ids)
        groups = {group.pk: group for group in AlertGroup.objects.for_analyst(self.user).filter(pk__in=ids)}
        visible = set(AlertGroup.objects.for_user(self.user).filter(pk__in=ids).values_list("pk", flat=True))
        for pk in sorted(ids - groups.keys()):
            self.refuse(pk, "forbidden" if pk in visible else "not_found")
        return [groups[pk] for pk in sorted(groups, reverse=True)]  # the newest of one fingerprint first

    def refuse(self, group_id: int, code: str) -> None:
        self.outcome.refused.append(Refusal(group_id, code, REFUSALS[code]))

    def apply(self, group: AlertGroup, wish: Wish) -> None:
        """Change `group`, unless it is already as wished."""
        changes = [
            GroupChange(
                tenant_id=group.tenant_id, group=group, operation=self.id, undoes=self.undoes, at=self.now,
                user_id=self.user.pk, user_name=self.user.get_username(), field=name, before=before, after=after,
            )
            for name, before, after in self._differences(group, wish)
        ]  # fmt: skip
        if not changes:
            return
        for change in changes:
            if change.field == Field.STATUS:
                self._note_status(group, change.before)
        group.version += 1
        self._groups.append(group)
        self._changes += changes

    def _differences(self, group: AlertGroup, wish: Wish) -> Iterable[tuple[Field, str, str]]:
        status = wish.status if wish.status is not None else group.status
        if status != group.status:
            yield Field.STATUS, group.status, status
        disposition = wish.disposition if wish.disposition is not None else group.disposition
        if status != Status.CLOSED:
            disposition = ""
        if disposition != group.disposition:
            yield Field.DISPOSITION, group.disposition, disposition
        if wish.assignee is not None and wish.assignee.pk != group.assignee_id:
            yield Field.ASSIGNEE, group.assignee_name, wish.assignee.name
            group.assignee_id, group.assignee_name = wish.assignee.pk, wish.assignee.name
        if wish.note is not None:
            yield Field.NOTE, "", wish.note
        group.status, group.disposition = status, disposition

    def _note_status(self, group: AlertGroup, before: str) -> None:
        group.status_changed_at, group.status_changed_by = self.now, self.user.get_username()
        if group.status == Status.NEW:
            group.acknowledged_count = None
        elif not self._keeps_count(group, before):
            group.acknowledged_count = group.count

    def _keeps_count(self, group: AlertGroup, before: str) -> bool:
        """Whether alerts go on being counted from the last acknowledgement. A closed group may be restored."""
        if group.acknowledged_count is None or before == Status.NEW:
            return False
        starts_work = (before, group.status) == (Status.ACKNOWLEDGED, Status.IN_PROGRESS)
        return starts_work or group.status == Status.CLOSED or self.undoes is not None

    def write(self) -> None:
        for group, revision in zip(self._groups, next_revisions(len(self._groups)), strict=True):
            group.revision = revision
        AlertGroup.objects.bulk_update(
            self._groups,
            ["status", "disposition", "assignee", "assignee_name", "status_changed_at", "status_changed_by",
             "acknowledged_count", "version", "revision"],
        )  # fmt: skip
        GroupChange.objects.bulk_create(self._changes)
        self.outcome.changed = [group.pk for group in self._groups]


def triage(user: Any, operation: UUID, versions: dict[int, int], wish: Wish, force: bool = False) -> Outcome:
    """Do `wish` to the groups in `versions`, which says which version of each the user saw.

    A group of another version is left as it is, unless `force`. A repeat of an operation does nothing. Raises Conflict
    if the id belongs to somebody else's operation.
    """
    with transaction.atomic():
        take_turn()
        work = Operation(user, operation)
        if work.was_done():
            return work.outcome
        groups = work.load(versions)
        open_ones = not_closed(groups)
        may_have = assignable_tenants(wish.assignee, groups, user)
        for group in groups:
            if group.version != versions[group.pk] and not force:
                work.outcome.stale.append(group.pk)
            elif wish.assignee and wish.assignee.pk and group.tenant_id not in may_have:
                work.refuse(group.pk, "not_assignable")
            elif reopens_beside_another(group, wish.status, open_ones):
                work.refuse(group.pk, "newer_group_open")
            else:
                work.apply(group, wish)
        work.write()
    return work.outcome


def undo(user: Any, operation: UUID, undoes: UUID) -> Outcome:
    """Give the groups that the operation `undoes` changed the values from before it. Notes stay.

    Groups that were changed since are left as they are. Raises Conflict if the id `operation` belongs to somebody
    else's operation, or if `undoes` is not an operation of the user.
    """
    with transaction.atomic():
        take_turn()
        work = Operation(user, operation, undoes)
        if work.was_done():
            return work.outcome
        changes = list(GroupChange.objects.for_user(user).filter(operation=undoes, user=user.pk))
        if not changes:
            raise Conflict("operation_unknown", "You did no such operation.")
        before: dict[int, dict[str, GroupChange]] = {}
        for change in changes:
            before.setdefault(change.group_id, {})[change.field] = change
        groups = work.load(before)
        last = last_changes(groups)
        open_ones = not_closed(groups)
        for group in groups:
            wish = restored(before[group.pk], group)
            if last[group.pk].operation != undoes:
                if last[group.pk].undoes != undoes:  # else it is undone already
                    work.outcome.stale.append(group.pk)
            elif wish.assignee and not may_have_back(wish.assignee, group, user):
                work.refuse(group.pk, "not_assignable")
            elif reopens_beside_another(group, wish.status, open_ones):
                work.refuse(group.pk, "newer_group_open")
            else:
                work.apply(group, wish)
        work.write()
    return work.outcome


def restored(changes: dict[str, GroupChange], group: AlertGroup) -> Wish:
    """The values from before `changes`, which are of one operation on `group`."""
    values = {name: changes[name].before for name in UNDOABLE if name in changes}
    assignee = None
    if Field.ASSIGNEE in values:
        assignee = person_named(values[Field.ASSIGNEE], group.tenant_id)
    return Wish(values.get(Field.STATUS), values.get(Field.DISPOSITION), assignee)


def person_named(name: str, tenant_id: int) -> Person:
    """Who had this name when a group was assigned to them; nobody if there is no such account any more."""
    users = get_user_model().objects.filter(username=name).values_list("pk", flat=True)
    with bypass_isolation():
        pk = users.first()
    return Person(pk, name) if pk else Person(None, "")


def may_have_back(person: Person, group: AlertGroup, user: Any) -> bool:
    """Whether an undo by `user` may assign `group` to `person` again: also to a superuser."""
    if person.pk is None:
        return True
    with bypass_isolation():
        if get_user_model().objects.filter(pk=person.pk, is_superuser=True, is_active=True).exists():
            return True
    return bool(assignable_tenants(person, [group], user))


def last_changes(groups: list[AlertGroup]) -> dict[int, GroupChange]:
    """The last change of each group."""
    changes = GroupChange.objects.filter(group__in=[group.pk for group in groups]).order_by("pk")
    return {change.group_id: change for change in changes}


def reopens_beside_another(group: AlertGroup, status: str | None, open_ones: set[Identity]) -> bool:
    """Whether `group` would be reopened although another of its fingerprint is open.

    New alerts would not know which to join. Otherwise it counts as open from now on.
    """
    if status in (None, Status.CLOSED):
        return False
    if group.status == Status.CLOSED and identity(group) in open_ones:
        return True
    open_ones.add(identity(group))
    return False


def not_closed(groups: list[AlertGroup]) -> set[Identity]:
    """The identities among those of `groups` that a group has which is not closed."""
    given = {identity(group) for group in groups}
    same: QuerySet[AlertGroup] = AlertGroup.objects.filter(
        tenant__in={tenant_id for tenant_id, _ in given}, fingerprint__in={fingerprint for _, fingerprint in given}
    )
    return {identity(group) for group in same.exclude(status=Status.CLOSED)}


def identity(group: AlertGroup) -> Identity:
    return group.tenant_id, bytes(group.fingerprint)


def assignable_tenants(person: Person | None, groups: list[AlertGroup], user: Any) -> set[int]:
    """The tenants of `groups` whose alerts `person` may triage. Only superusers themselves can assign to superusers."""
    if person is None or person.pk is None:
        return set()
    tenant_ids = {group.tenant_id for group in groups}
    if person.pk == user.pk and user.is_superuser:
        return tenant_ids
    members = Membership.objects.filter(
        user=person.pk, user__is_active=True, role__in=[Role.ANALYST, Role.ADMIN], tenant__in=tenant_ids
    )
    return set(members.values_list("tenant", flat=True))
