"""The request's body: read while it arrives, inflated, and bounded in both."""

import sys
import zlib
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest

from ingest.backlog import Share
from ingest.errors import BodyTooLarge, MalformedBatch, UnsupportedContentEncoding, UnsupportedContentType

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

JSON_TYPES = ("", "application/json")


async def read_body(request: HttpRequest, limit: int, share: Share) -> bytes:
    """The inflated body, at most `limit` bytes; `share` holds it until it is whole.

    Raises UnsupportedContentType, UnsupportedContentEncoding, BodyTooLarge (as soon as it is known,
    without reading the rest), BodyTooSlow, Overloaded, and MalformedBatch for a compressed stream that is damaged.
    """
    if request.content_type not in JSON_TYPES:
        raise UnsupportedContentType
    coding = request.META.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if coding not in ("identity", "") and coding not in INFLATE:
        raise UnsupportedContentEncoding
    declared = request.META.get("CONTENT_LENGTH", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise BodyTooLarge(limit)
    receive_body = getattr(request, "receive_body", None)  # see `ingest.handler`
    body = await receive_body(limit, share) if receive_body else request.body
    if len(body) > limit:  # where Django's own handler has read it whole
        raise BodyTooLarge(limit)
    return INFLATE[coding](body, limit) if coding in INFLATE else body


def _inflate(data: bytes, limit: int, new_decompressor: Callable[[], Any]) -> bytes:
    """All members (gzip) or frames (zstd) of `data`, one after the other."""
    inflated = bytearray()
    while True:
        decompressor = new_decompressor()
        try:
            inflated += decompressor.decompress(data, limit + 1 - len(inflated))
        except (zlib.error, zstd.ZstdError) as error:
            raise MalformedBatch("The compressed body is damaged.", code="malformed_body") from error
        if len(inflated) > limit:
            raise BodyTooLarge(limit)
        if not decompressor.eof:
            raise MalformedBatch("The compressed body ends too early.", code="malformed_body")
        data = decompressor.unused_data
        if not data:
            return bytes(inflated)


def _inflate_deflate(data: bytes, limit: int) -> bytes:
    """`deflate` is the zlib format (RFC 9110, section 8.4.1.2), but some clients send it without its wrapper."""
    wrapped = len(data) >= 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
    return _inflate(data, limit, lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS))


def _inflate_gzip(data: bytes, limit: int) -> bytes:
    return _inflate(data, limit, lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS))


def _inflate_zstd(data: bytes, limit: int) -> bytes:
    return _inflate(data, limit, zstd.ZstdDecompressor)


INFLATE: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _inflate_gzip,
    "x-gzip": _inflate_gzip,  # the same coding (RFC 9110, section 8.4.1.3)
    "deflate": _inflate_deflate,
    "zstd": _inflate_zstd,
}
