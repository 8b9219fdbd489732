"""Changing groups, and undoing it."""

from typing import Any

from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.db import transaction
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.api.filters import INT64_MAX
from alerts.api.groups import represented
from alerts.broadcast import broadcast_changes
from alerts.models import Disposition, GroupChange, Status
from alerts.triage import Outcome, Person, Wish, triage, undo
from tenants.api import PersonView, validated

MAX_GROUPS = 500  # in one operation
NOTE_LENGTH = 4000


class SeenGroupSerializer(serializers.Serializer):
    """A group, and the version that the person saw."""

    id = serializers.IntegerField(min_value=1, max_value=INT64_MAX)
    version = serializers.IntegerField(min_value=0, max_value=INT64_MAX)


class TriageSerializer(serializers.Serializer):
    """An operation on groups. What is absent stays as it is; an `assignee` of null is nobody."""

    operation = serializers.UUIDField(help_text="Made by the client: the same request with the same id is done once.")
    groups = SeenGroupSerializer(many=True, allow_empty=False, max_length=MAX_GROUPS)  # type: ignore[call-arg]
    status = serializers.ChoiceField(Status.choices, required=False)
    disposition = serializers.ChoiceField(Disposition.choices, required=False)
    assignee = serializers.IntegerField(min_value=1, max_value=INT64_MAX, required=False, allow_null=True)
    note = serializers.CharField(max_length=NOTE_LENGTH, required=False)
    force = serializers.BooleanField(required=False, default=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs.keys() & {"status", "disposition", "assignee", "note"}:
            raise serializers.ValidationError("Nothing to change is given.", code="required")
        closes = attrs.get("status") == Status.CLOSED
        if closes and "disposition" not in attrs:
            raise serializers.ValidationError({"disposition": "Closing needs a disposition."}, code="required")
        if "status" in attrs and not closes and "disposition" in attrs:
            raise serializers.ValidationError({"disposition": "Only closed groups have one."}, code="invalid")
        return attrs


class UndoSerializer(serializers.Serializer):
    operation = serializers.UUIDField(help_text="Made by the client, as for any operation.")
    undoes = serializers.UUIDField(help_text="The operation to undo: one of the user's own.")


class TriageView(PersonView):
    """Status, disposition, assignee and notes of one or many groups."""

    def post(self, request: Request) -> Response:
        given = validated(TriageSerializer, request.data)
        wish = Wish(given.get("status"), given.get("disposition"), assignee_in(given), given.get("note"))
        versions = {group["id"]: group["version"] for group in given["groups"]}
        outcome = triage(request.user, given["operation"], versions, wish, given["force"])
        return answer(given["operation"], outcome)


class UndoView(PersonView):
    """The values from before an operation, as a new operation."""

    def post(self, request: Request) -> Response:
        given = validated(UndoSerializer, request.data)
        return answer(given["operation"], undo(request.user, given["operation"], given["undoes"]))


def assignee_in(given: dict[str, Any]) -> Person | None:
    """The person to assign to. Somebody whom the user can't see has no name, and is refused later."""
    if "assignee" not in given:
        return None
    if given["assignee"] is None:
        return Person(None, "")
    names = get_user_model().objects.filter(pk=given["assignee"]).values_list("username", flat=True)
    return Person(given["assignee"], names.first() or "")


def answer(operation: Any, outcome: Outcome) -> Response:
    """What the operation did, with the groups as they are now. Other open pages learn of it after the commit."""
    if outcome.changed:
        transaction.on_commit(async_to_sync(broadcast_changes))
    last = {change.group_id: change for change in GroupChange.objects.filter(group__in=outcome.stale).order_by("pk")}
    stale = [
        {"group": group, "change": represent_last(last.get(pk))}
        for pk, group in zip(outcome.stale, represented(outcome.stale), strict=True)
    ]
    refused = [{"id": each.group_id, "code": each.code, "detail": each.detail} for each in outcome.refused]
    changed = represented(outcome.changed)
    return Response({"operation": str(operation), "changed": changed, "stale": stale, "refused": refused})


def represent_last(change: GroupChange | None) -> dict[str, object] | None:
    if change is None:
        return None
    return {"user": change.user_name, "at": change.at.isoformat(), "field": change.field, "after": change.after}
