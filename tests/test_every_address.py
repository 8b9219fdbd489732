"""Whatever anybody sends to any address that the site has, by any method: never a fault of ours."""

import itertools
import random
import re
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from tests.support.fuzz import FUZZ
from tests.support.side import Side

pytestmark = [pytest.mark.exhaustive, pytest.mark.django_db(transaction=True)]

NAMES = [
    "q", "p", "o", "e", "all", "page", "s", "next", "format", "lang", "term", "app_label", "model_name", "field_name",
    "tenant", "name", "device", "label", "expires_at", "usage_limit", "members", "username", "id__exact",
    "tenant__id__exact", "device__id__exact", "batch", "kind__exact", "state", "online", "module", "code",
    "received_at_from_0", "received_at_from_1", "received_at_to_0", "severity__exact", "status__exact",
    "_changelist_filters", "_popup", "_to_field", "_facets", "_continue", "action", "_selected_action", "select_across",
    "index", "overlap", "since", "extended", "csrfmiddlewaretoken", "password", "old_password", "post",
]  # fmt: skip
VALUES = [
    "", "x", "1", "0", "-1", "9" * 19, "9" * 400, "1e999", "NaN", "٣", "None", "true", "a\x00b", "\x1b[2J\r\n", "'",
    '"', "%", "\\", "{", "[", "<script>", "x" * 20_000, "2026-13-45", "9999-12-31", "24:61", "1,2", "1__in", "id",
    "a b c d e f g h i j k l", "\u202e", "\ufffe", "😀", "devices", "tenant", "//example.org", "../../etc/passwd",
    "delete_selected",
]  # fmt: skip
IDS = ["x", "0", "_5F", "_", "9" * 30, "-1", "1/2", "\x1b", "a\x00b", "é"]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
CONTENT_TYPES = ["application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=x", ""]
TRIES = 3 * FUZZ


def routes(patterns: list[URLPattern | URLResolver], before: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        route = before + getattr(pattern.pattern, "_route", "")
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        else:
            yield route, pattern


def addresses(sides: list[Side]) -> list[str]:
    """Every address; those of a row with the ids of real rows, and with nonsense."""
    found = ["/nowhere", "/admin/nowhere/", "/api/v1/nowhere", "/static/nowhere.css", "/static/alerts/live.css"]
    models = {f"{model._meta.app_label}_{model._meta.model_name}_": model for model in admin.site._registry}
    for route, pattern in routes(get_resolver().url_patterns):
        ids = [*IDS]
        for start, model in models.items():
            if (pattern.name or "").startswith(start):
                ids += [str(side.rows[model].pk) for side in sides if model in side.rows]
        for each in ids if "<" in route else [""]:
            found.append("/" + re.sub("<[^>]+>", lambda match, each=each: each, route))
    return found


def somebody(who: str, ours: Side) -> Client:
    client = Client(raise_request_exception=False)
    if who == "staff":
        client.force_login(ours.user)
    if who == "superuser":
        user, _ = User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)
        client.force_login(user)
    return client


def send(client: Client, method: str, address: str, nonsense: dict[str, str], content_type: str) -> int:
    query = urlencode(nonsense)
    if method in ("GET", "HEAD"):
        answer = client.generic(method, address, QUERY_STRING=query)
    else:
        answer = client.generic(method, address, query.encode(), content_type)
    answer.close()
    return answer.status_code


@pytest.mark.parametrize("who", ["anybody", "staff", "superuser"])
def test_no_address_answers_with_a_fault(who):
    chance = random.Random(0 if FUZZ == 1 else None)
    sides = [Side("ours"), Side("theirs")]
    every = addresses(sides)
    assert len(every) > 300
    methods, faults = itertools.cycle(METHODS), []
    client = somebody(who, sides[0])
    for address in every:
        if "logout" in address or "password" in address:
            client = somebody(who, sides[0])
        for attempt in range(TRIES):
            nonsense = {name: chance.choice(VALUES) for name in chance.sample(NAMES, attempt % 3 * 4)}
            asked = "GET" if attempt == 0 else next(methods), address, nonsense, chance.choice(CONTENT_TYPES)
            if send(client, *asked) >= 500:
                faults.append((asked, client.exc_info))
                client.exc_info = None
    assert not faults
