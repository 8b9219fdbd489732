"""What the headers of a request say of the batch, beside the key and the encodings."""

import re
from typing import Any

from ingest.errors import InvalidIdempotencyKey
from ingest.fields import normalize_address

IDEMPOTENCY_KEY = re.compile(r'"?([!#-\[\]-~]{1,255})"?')  # visible ASCII without quotes and backslashes


Headers = dict[str, Any]  # a request's META


def source_address(headers: Headers) -> str | None:
    """Where the request came from, None where that is no address: a proxy may pass on anything."""
    try:
        return normalize_address(headers.get("REMOTE_ADDR", ""))
    except ValueError:
        return None


def prefers_lenient(headers: Headers) -> bool:
    """Whether the device has asked for `handling=lenient` (RFC 7240, section 4.4)."""
    header = headers.get("HTTP_PREFER")
    if header is None:
        return False
    preferences = (preference.partition(";")[0].partition("=") for preference in header.lower().split(","))
    handling = [value.strip(' "') for name, _, value in preferences if name.strip() == "handling"]
    return handling[:1] == ["lenient"]  # of several, the first one counts (section 2)


def idempotency_key(headers: Headers) -> str | None:
    """The value of `Idempotency-Key`, with or without the quotes that draft-ietf-httpapi-idempotency-key-header wants.

    Raises InvalidIdempotencyKey.
    """
    header = headers.get("HTTP_IDEMPOTENCY_KEY")
    if header is None:
        return None
    match = IDEMPOTENCY_KEY.fullmatch(header.strip())
    if match is None:
        raise InvalidIdempotencyKey
    return match[1]
