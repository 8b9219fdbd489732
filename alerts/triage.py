"""What people do about a group of alerts."""

from collections.abc import Iterable

from django.db import transaction
from django.db.models import QuerySet

from alerts.models import AlertGroup, Status
from alerts.order import next_revisions, take_turn


def set_status(groups: QuerySet[AlertGroup], status: Status) -> tuple[list[AlertGroup], list[AlertGroup]]:
    """Give `groups` a status; returns those that changed, and closed ones that can't be reopened.

    A group stays closed if another of its fingerprint is not: new alerts would not know which to join.
    """
    changed, refused = [], []
    with transaction.atomic():
        take_turn()
        given = list(groups.exclude(status=status).order_by("-pk"))  # the newest of one fingerprint first
        not_closed = _not_closed(given) if status != Status.CLOSED else set()
        for group in given:
            if group.status == Status.CLOSED and _identity(group) in not_closed:
                refused.append(group)
                continue
            not_closed.add(_identity(group))
            group.status = status
            changed.append(group)
        for group, revision in zip(changed, next_revisions(len(changed)), strict=True):
            group.revision = revision
        AlertGroup.objects.bulk_update(changed, ["status", "revision"])
    return changed, refused


def _not_closed(groups: Iterable[AlertGroup]) -> set[tuple[int, bytes]]:
    """The identities among those of `groups` that a group has which is not closed."""
    given = {_identity(group) for group in groups}
    tenants, fingerprints = {tenant for tenant, _ in given}, {fingerprint for _, fingerprint in given}
    rows = AlertGroup.objects.filter(tenant__in=tenants, fingerprint__in=fingerprints).exclude(status=Status.CLOSED)
    return {_identity(group) for group in rows}


def _identity(group: AlertGroup) -> tuple[int, bytes]:
    return group.tenant_id, bytes(group.fingerprint)
