"""Reading groups: the list, one of them, its alerts and its history."""

from typing import Any

from django.db.models import Q, QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.api.filters import GroupFilter
from alerts.api.pagination import next_address, page_by_id, page_of
from alerts.models import AlertGroup, GroupChange, SecurityAlert, Status
from alerts.representation import represent_evidence, represent_group
from alerts.searching import Search
from tenants.api import PersonView
from tenants.models import Membership, Role

MAX_OTHERS = 20  # earlier and related groups beside one


def represented(ids: list[int]) -> list[dict[str, object]]:
    """The groups with these ids that the user of the transaction may see, in the same order."""
    groups = AlertGroup.objects.represented().in_bulk(ids)
    return [represent_group(groups[pk]) for pk in ids if pk in groups]


class GroupListView(PersonView):
    """The groups that pass a filter, the last changed first."""

    def get(self, request: Request) -> Response:
        found_by = GroupFilter.of(request)
        below, limit = page_of(request)
        # Read before the groups: every later change has a higher revision, and comes on the socket.
        revision = AlertGroup.objects.latest_of(request.user, 1).values_list("revision", flat=True).first() or 0
        now = timezone.now()
        found = found_by.find(limit + 1, below)
        page = found[:limit]
        return Response(
            {
                "results": represented([pk for _, pk in page]),
                "next": next_address(request, page[-1][0] if len(found) > limit else None),
                "revision": revision,
                "now": now.isoformat(),
            }
        )


class GroupView(PersonView):
    """One group, with what an analyst wants to know beside it."""

    def get(self, request: Request, pk: int) -> Response:
        group = get_object_or_404(AlertGroup.objects.represented().for_user(request.user), pk=pk)
        may_triage = AlertGroup.objects.for_analyst(request.user).filter(pk=pk).exists()
        last_alert = SecurityAlert.objects.filter(pk=group.last_alert_id, group=group)
        return Response(
            represent_group(group)
            | {
                "description": last_alert.values_list("description", flat=True).first() or "",
                "earlier": [represent_group(other) for other in earlier(group)],
                "related": represented(related_ids(request.user, group)),
                "assignable": assignable(group, request.user) if may_triage else [],
                "may_triage": may_triage,
            }
        )


def earlier(group: AlertGroup) -> QuerySet[AlertGroup]:
    """The groups of the same fingerprint that were closed before `group` began, the newest first."""
    same = AlertGroup.objects.represented().filter(tenant=group.tenant_id, fingerprint=group.fingerprint)
    return same.filter(status=Status.CLOSED, pk__lt=group.pk).order_by("-pk")[:MAX_OTHERS]


def related_ids(user: Any, group: AlertGroup) -> list[int]:
    """Other groups of its tenant, closed ones too, with one of its addresses; the last changed first."""
    addresses = [address for address in (group.source_ip, group.destination_ip) if address]
    if not addresses:
        return []
    shares = Q(source_ip__in=addresses) | Q(destination_ip__in=addresses)
    found_by = GroupFilter(user, Search(shares), Q(count__gt=0) & ~Q(pk=group.pk), [group.tenant.slug])
    return [pk for _, pk in found_by.find(MAX_OTHERS)]


def assignable(group: AlertGroup, user: Any) -> list[dict[str, object]]:
    """The people whom `user` may assign `group` to."""
    members = Membership.objects.filter(
        tenant=group.tenant_id, role__in=[Role.ANALYST, Role.ADMIN], user__is_active=True
    ).select_related("user")
    people = {member.user_id: member.user.get_username() for member in members}
    if user.is_superuser:
        people[user.pk] = user.get_username()
    return [{"id": pk, "name": name} for pk, name in sorted(people.items(), key=lambda person: person[1])]


class RowsOfGroupView(PersonView):
    """A page of rows that belong to a group, the newest first."""

    def get(self, request: Request, pk: int) -> Response:
        get_object_or_404(AlertGroup.objects.for_user(request.user), pk=pk)
        return Response(page_by_id(request, self.rows().filter(group=pk), self.represent))

    def rows(self) -> QuerySet:
        raise NotImplementedError

    def represent(self, row: Any) -> dict[str, object]:
        raise NotImplementedError


class GroupAlertsView(RowsOfGroupView):
    """The alerts of a group, as they were sent."""

    def rows(self) -> QuerySet:
        return SecurityAlert.objects.select_related("device")

    def represent(self, row: SecurityAlert) -> dict[str, object]:
        return represent_evidence(row)


class GroupChangesView(RowsOfGroupView):
    """What people did about a group."""

    def rows(self) -> QuerySet:
        return GroupChange.objects.all()

    def represent(self, row: GroupChange) -> dict[str, object]:
        return {
            "id": row.pk,
            "operation": str(row.operation),
            "undoes": str(row.undoes) if row.undoes else None,
            "at": row.at.isoformat(),
            "user": {"id": row.user_id, "name": row.user_name},
            "field": row.field,
            "before": row.before,
            "after": row.after,
        }
