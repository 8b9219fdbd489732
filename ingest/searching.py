"""What a search finds in the data of events: a text within any value, or an address that is a value."""

import ipaddress
import json
import re
from collections.abc import Iterator
from typing import Any

from django.db.models import BooleanField, Func, QuerySet

MAX_LENGTH = 200  # characters of a search
OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
LOOKS_LIKE_ADDRESS = re.compile(r"[0-9a-f]*:[0-9a-f:.]*(/\d+)?|\d+(\.\d+){3}(/\d+)?", re.IGNORECASE)


class InvalidSearchError(ValueError):
    """`str` says why."""


class HasValue(Func):
    """Whether a value of the JSON, at any depth, is a string that a regular expression finds.

    The expression must mean the same to PostgreSQL and to Python, which SQLite uses. Keys are no values.
    """

    output_field = BooleanField()

    def __init__(self, data: str, pattern: str) -> None:
        super().__init__(data)
        self.pattern = pattern

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, list[Any]]:
        column, parameters = compiler.compile(self.source_expressions[0])
        path = f'$.** ? (@ like_regex {json.dumps(self.pattern)} flag "i")'
        return f"jsonb_path_exists({column}, %s::jsonpath)", [*parameters, path]

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, tuple[str | int, ...]]:
        column, parameters = compiler.compile(self.source_expressions[0])
        found = f"SELECT 1 FROM json_tree({column}) WHERE type = 'text' AND atom REGEXP %s"  # noqa: S608
        return f"EXISTS ({found})", (*parameters, f"(?i){self.pattern}")


def search(events: QuerySet, text: str) -> QuerySet:
    """The events in whose data `text` is. If it is an address, or an IPv4 network, only as a whole value.

    Raises InvalidSearchError.
    """
    text = text.strip()
    if len(text) > MAX_LENGTH:
        raise InvalidSearchError(f"A search takes at most {MAX_LENGTH} characters.")
    if "\0" in text:
        raise InvalidSearchError("No event has a NUL character.")
    return events.filter(HasValue("data", pattern_of(text)))


def pattern_of(text: str) -> str:
    """A regular expression for the values that are meant. Raises InvalidSearchError."""
    if not LOOKS_LIKE_ADDRESS.fullmatch(text):
        return _literally(text)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return _literally(text)
    if isinstance(network, ipaddress.IPv4Network):
        return rf"^{_of_network(network)}\Z"
    if network.num_addresses > 1:
        raise InvalidSearchError("A network of IPv6 can't be searched for. Search for an address.")
    return rf"^({'|'.join(_spellings(network.network_address))})\Z"


def _literally(text: str) -> str:
    return re.sub(r"([\\.^$*+?()\[\]{}|])", r"\\\1", text)


def _of_network(network: ipaddress.IPv4Network) -> str:
    """The addresses of a network: some octets are given, one may be a range, and the rest is any."""
    given, bits = divmod(network.prefixlen, 8)
    octets = [str(octet) for octet in network.network_address.packed]
    parts = octets[:given]
    if bits:
        first = int(octets[given])
        parts.append(f"({'|'.join(str(first + n) for n in range(2 ** (8 - bits)))})")
    return r"\.".join(parts + [OCTET] * (4 - len(parts)))


def _spellings(address: ipaddress.IPv6Address) -> Iterator[str]:
    """All ways to write an address: with and without leading zeros, `::`, and the end as an IPv4 address."""
    groups = [int(group, 16) for group in address.exploded.split(":")]
    end = r"\.".join(str(octet) for octet in address.packed[12:])
    hexadecimal = [f"0{{0,{4 - len(f'{group:x}')}}}{group:x}" for group in groups]
    for parts, zero in ((hexadecimal, 8), ([*hexadecimal[:6], end], 6)):
        yield ":".join(parts)
        for first in range(zero):
            for last in range(first, zero):
                if any(groups[first : last + 1]):
                    break
                yield f"{':'.join(parts[:first])}::{':'.join(parts[last + 1 :])}"
