"""Filters that users keep under a name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.models import SavedFilter
from common.problems import Conflict
from common.sequences import is_taken_id
from common.text import printable
from tenants.api import PersonView, validated

MAX_FILTERS = 100  # of a user


class SavedFilterSerializer(serializers.ModelSerializer):
    """A name, and the query string that the console's address has with this filter."""

    name = serializers.CharField(max_length=80, validators=[printable])

    class Meta:
        model = SavedFilter
        fields = ("id", "name", "query")


def filters_of(user: Any) -> QuerySet[SavedFilter]:
    return SavedFilter.objects.filter(user=user.pk)


@contextmanager
def unique_name() -> Iterator[None]:
    """For a write: raises Conflict if another filter of the user has this name."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        if is_taken_id(error):
            raise
        raise Conflict("name_taken", "You have a filter of this name.") from error


class SavedFilterListView(PersonView):
    def get(self, request: Request) -> Response:
        return Response({"results": SavedFilterSerializer(filters_of(request.user), many=True).data})

    def post(self, request: Request) -> Response:
        given = validated(SavedFilterSerializer, request.data)
        if filters_of(request.user).count() >= MAX_FILTERS:
            raise Conflict("too_many_filters", f"You have {MAX_FILTERS} filters. Delete one first.")
        with unique_name():
            saved = SavedFilter.objects.create(user_id=cast("int", request.user.pk), **given)
        return Response(SavedFilterSerializer(saved).data, status=status.HTTP_201_CREATED)


class SavedFilterView(PersonView):
    def put(self, request: Request, pk: int) -> Response:
        saved = get_object_or_404(filters_of(request.user), pk=pk)
        given = validated(SavedFilterSerializer, request.data)
        saved.name, saved.query = given["name"], given.get("query", "")
        with unique_name():
            saved.save()
        return Response(SavedFilterSerializer(saved).data)

    def delete(self, request: Request, pk: int) -> Response:
        get_object_or_404(filters_of(request.user), pk=pk).delete()
        return Response(status=status.HTTP_204_NO_CONTENT)
