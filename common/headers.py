"""Reads the request headers that more than one endpoint needs."""

import re
import socket
from ipaddress import IPv6Network, ip_address
from typing import Any

from rest_framework.exceptions import APIException

Headers = dict[str, Any]  # a request's META

IDEMPOTENCY_KEY = re.compile(r'"?([!#-\[\]-~]{1,255})"?')  # visible ASCII without quotes and backslashes


class InvalidIdempotencyKey(APIException):
    """400: the header is not a valid Idempotency-Key."""

    status_code = 400
    default_code = "invalid_idempotency_key"
    default_detail = "Idempotency-Key must be 1 to 255 visible ASCII characters, in double quotes."


def idempotency_key(headers: Headers) -> str | None:
    """The value of `Idempotency-Key`, None if there is none. Raises InvalidIdempotencyKey.

    The quotes that draft-ietf-httpapi-idempotency-key-header requires may be missing.
    """
    header = headers.get("HTTP_IDEMPOTENCY_KEY")
    if header is None:
        return None
    match = IDEMPOTENCY_KEY.fullmatch(header.strip())
    if match is None:
        raise InvalidIdempotencyKey
    return match[1]


def source_address(headers: Headers) -> str | None:
    """The address that the request came from, None if it is not an address: a proxy may pass on anything."""
    try:
        return normalize_address(headers.get("REMOTE_ADDR", ""))
    except ValueError:
        return None


def network_of(headers: Headers) -> str:
    """What limits count a request for: the network of its address."""
    return network_of_address(headers.get("REMOTE_ADDR", ""))


def network_of_address(address: str) -> str:
    """The address itself; of IPv6 the first 64 bits, because a client can choose the rest."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return "0.0.0.0"  # noqa: S104  a proxy that says "unknown"
    if parsed.version == 6 and parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((parsed.packed, 64), strict=False).network_address) if parsed.version == 6 else str(parsed)


def normalize_address(text: str) -> str:
    """The usual form of an IPv4 or IPv6 address, as PostgreSQL writes it. Raises ValueError for any other text."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except OSError as error:
        raise ValueError("not an IP address") from error
