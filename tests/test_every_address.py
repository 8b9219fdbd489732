"""Whatever anyone sends to any address of the site, by any method, is never answered with a server error."""

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

pytestmark = [pytest.mark.exhaustive, pytest.mark.once, pytest.mark.django_db(transaction=True)]

NAMES = [
    "q", "p", "o", "e", "all", "page", "s", "next", "format", "lang", "term", "app_label", "model_name", "field_name",
    "tenant", "name", "device", "label", "expires_at", "usage_limit", "members", "username", "id__exact",
    "tenant__id__exact", "device__id__exact", "batch", "kind__exact", "state", "online", "module", "code",
    "around", "until", "clock", "before", "after",
    "received_at_from_0", "received_at_from_1", "received_at_to_0", "severity__exact", "status__exact",
    "_changelist_filters", "_popup", "_to_field", "_facets", "_continue", "action", "_selected_action", "select_across",
    "index", "overlap", "since", "extended", "csrfmiddlewaretoken", "password", "old_password", "post",
]  # fmt: skip
VALUES = [
    "", "x", "1", "0", "-1", "9" * 19, "9" * 400, "1e999", "NaN", "٣", "None", "true", "a\x00b", "\x1b[2J\r\n", "'",
    '"', "%", "\\", "{", "[", "<script>", "x" * 20_000, "2026-13-45", "9999-12-31", "24:61", "1,2", "1__in", "id",
    "a b c d e f g h i j k l", "\u202e", "\ufffe", "😀", "devices", "tenant", "//example.org", "../../etc/passwd",
    "delete_selected", "\ud800",
]  # fmt: skip
# The site itself queries by these, so an address that accepts names of fields might accept them as well.
REVERSE_RELATIONS = sorted(
    {relation.name for model in admin.site._registry for relation in model._meta.related_objects}
)
IDS = ["x", "0", "_5F", "_", "9" * 30, "-1", "1/2", "\x1b", "a\x00b", "é"]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
FORM = "application/x-www-form-urlencoded"
CHARSETS = ["utf-8", "utf-16", "utf-7", "rot13", "base64", "idna", "nonsense", "[", "é", "\xff", '"', "x" * 500]
CONTENT_TYPES = [
    FORM, FORM, "application/json", "multipart/form-data; boundary=x", "multipart/form-data", "/", "",
    *(f"{kind}; charset={charset}" for kind in (FORM, "application/json") for charset in CHARSETS),
    *(f"multipart/form-data; boundary=x; charset={charset}" for charset in CHARSETS),
]  # fmt: skip
HEADERS = [
    "Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Host", "If-Modified-Since", "If-None-Match",
    "Idempotency-Key", "Origin", "Range", "Referer", "User-Agent", "X-Device-Key", "X-Forwarded-For",
    "X-Forwarded-Host", "X-HTTP-Method-Override", "X-Provisioning-Key", "X-Requested-With",
]  # fmt: skip
HEADER_VALUES = [  # a server decodes them as Latin-1; "\xed\xa0\x80" is a lone surrogate in UTF-8
    "", "[", "]",
    "http://[", "http://]", "http://[::1", "//[x]", "\xed\xa0\x80", "\xff", "é", "\x00", "x" * 5000, "*", "q=x",
    "application/json", "application/json;q=[", "bytes=0-", "bytes=9-1", '"', "W/", "Mon, 99 Nov 9999 99:99:99 GMT",
    "http://testserver", "XMLHttpRequest", "Basic \xed\xb2\x80", "[::1]:99999", ",", ";=",
]  # fmt: skip


def routes(patterns: list[URLPattern | URLResolver], before: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        route = before + getattr(pattern.pattern, "_route", "")
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        else:
            yield route, pattern


def addresses(sides: list[Side]) -> tuple[list[str], list[str]]:
    """Every address, with the id of our row if it takes one; and again with other ids: of their rows, and nonsense."""
    own = ["/nowhere", "/admin/nowhere/", "/admin/devices/", "/api/v1/nowhere", "/static/nowhere.css"]
    other = ["/static/alerts/site.css"]
    models = {f"{model._meta.app_label}_{model._meta.model_name}_": model for model in admin.site._registry}
    for route, pattern in routes(get_resolver().url_patterns):
        rows = [model for start, model in models.items() if (pattern.name or "").startswith(start)]
        ours, theirs = ([str(side.rows[model].pk) for model in rows if model in side.rows] for side in sides)
        ids = [*ours, *theirs, *IDS] if "<" in route else [""]
        first, *rest = ("/" + re.sub("<[^>]+>", lambda match, each=each: each, route) for each in ids)
        own.append(first)
        other += rest
    return own, other


def somebody(who: str, ours: Side) -> Client:
    client = Client(raise_request_exception=False)
    if who == "staff":
        client.force_login(ours.user)
    if who == "superuser":
        user, _ = User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)
        client.force_login(user)
    return client


class Chance:
    """Random contents for requests: the same in every run unless FUZZ is set."""

    def __init__(self) -> None:
        self._random = random.Random(0 if FUZZ == 1 else None)
        self._names, self._values = NAMES + REVERSE_RELATIONS, VALUES + REVERSE_RELATIONS

    def fields(self) -> dict[str, str]:
        names = self._random.sample(self._names, self._random.choice((1, 4, 8)))
        return {name: self._random.choice(self._values) for name in names}

    def headers(self) -> dict[str, str]:
        return {name: self._random.choice(HEADER_VALUES) for name in self._random.sample(HEADERS, 3)}

    def content_type(self) -> str:
        return self._random.choice(CONTENT_TYPES)


def send(
    client: Client, method: str, address: str, fields: dict[str, str], headers: dict[str, str], content_type: str
) -> int:
    query = urlencode(fields, errors="surrogatepass")
    if method in ("GET", "HEAD"):
        answer = client.generic(method, address, QUERY_STRING=query, headers=headers)
    else:
        answer = client.generic(method, address, query.encode(), content_type, headers=headers)
    answer.close()
    return answer.status_code


def requests(sides: list[Side]) -> Iterator[tuple[str, str]]:
    """Every method at every address, but at those with other ids the methods take turns."""
    own, other = addresses(sides)
    assert len(own) > 90
    assert len(other) > 400
    turns = itertools.cycle(METHODS)
    for _ in range(FUZZ):
        yield from itertools.product(METHODS, own)
        yield from ((next(turns), address) for address in other)


@pytest.mark.parametrize("who", ["anybody", "staff", "superuser"])
def test_no_address_answers_with_a_server_error(who):
    sides, chance, faults = [Side("ours"), Side("theirs")], Chance(), []
    client = somebody(who, sides[0])
    for number, (method, address) in enumerate(requests(sides)):
        if "logout" in address or "password" in address:
            client = somebody(who, sides[0])
        headers = chance.headers() if number % 2 else {}
        asked = method, address, chance.fields(), headers, chance.content_type()
        if send(client, *asked) >= 500:
            faults.append((asked, client.exc_info))
            client.exc_info = None
    assert not faults
