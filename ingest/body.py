"""Reads the request's body as it arrives, and inflates it, both within bounds."""

import contextlib
import sys
import zlib
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest

from ingest.backlog import BATCH_OVERHEAD_BYTES, Reservation
from ingest.errors import BodyTooLarge, MalformedBatch, UnsupportedContentEncoding, UnsupportedContentType
from ingest.turns import run_in_turn

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

JSON_TYPES = ("", "application/json")
INLINE_BYTES = 256 * 1024  # a larger body is inflated and checked in a thread: it would hold up the event loop
INLINE_COMPRESSED_BYTES = 64 * 1024
MAX_MEMBERS = 1000  # gzip members or zstd frames in a body: one for each event
PIECE_BYTES = 16 * 1024
ZSTD_OPTIONS: dict[int, int] = {
    zstd.DecompressionParameter.window_log_max: 23
}  # 8 MiB, the largest window that RFC 9659 allows


async def read_body(request: HttpRequest, limit: int, reservation: Reservation) -> bytes:
    """Return the inflated body, at most `limit` bytes.

    `reservation` covers it while it arrives, and while it is inflated if that takes long. Raises
    UnsupportedContentType, UnsupportedContentEncoding, BodyTooLarge (as soon as that is known, without reading the
    rest), BodyTooSlow, Overloaded, and MalformedBatch if the compressed stream is damaged.
    """
    if request.content_type not in JSON_TYPES:
        raise UnsupportedContentType
    coding = request.META.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if coding not in ("identity", "") and coding not in INFLATE:
        raise UnsupportedContentEncoding
    declared = request.META.get("CONTENT_LENGTH", "")
    if declared.isdecimal() and int(declared[:20]) > limit:  # enough digits for any limit; `int` refuses thousands
        raise BodyTooLarge(limit)
    receive_body = getattr(request, "receive_body", None)  # see `ingest.handler`
    body = await receive_body(limit, reservation) if receive_body else request.body
    if len(body) > limit:  # Django's own handler has read it whole
        raise BodyTooLarge(limit)
    if coding not in INFLATE:
        return body
    if len(body) <= INLINE_COMPRESSED_BYTES:
        with contextlib.suppress(BodyTooLarge):
            return INFLATE[coding](body, min(limit, INLINE_BYTES))
    reservation.grow(len(body) + BATCH_OVERHEAD_BYTES)
    return await run_in_turn(reservation.device_id, INFLATE[coding], body, limit)


def _inflate(data: bytes, limit: int, new_decompressor: Callable[[], Any]) -> bytes:
    """Inflate all members (gzip) or frames (zstd) of `data`, one after the other, in linear time.

    A decompressor copies whatever follows the end of its member, so it is fed small pieces.
    """
    inflated = bytearray()
    view, position = memoryview(data), 0
    for _ in range(MAX_MEMBERS):
        decompressor = new_decompressor()
        while not decompressor.eof:
            if position == len(data):
                raise MalformedBatch("The compressed body ends too early.", code="malformed_body")
            piece = view[position : position + PIECE_BYTES]
            try:
                inflated += decompressor.decompress(piece, limit + 1 - len(inflated))
            except (zlib.error, zstd.ZstdError) as error:
                raise MalformedBatch("The compressed body is damaged.", code="malformed_body") from error
            if len(inflated) > limit:
                raise BodyTooLarge(limit)
            position += len(piece)
        position -= len(decompressor.unused_data)
        if position == len(data):
            return bytes(inflated)
    raise MalformedBatch(f"The compressed body has more than {MAX_MEMBERS} parts.", code="malformed_body")


def _inflate_deflate(data: bytes, limit: int) -> bytes:
    """`deflate` is the zlib format (RFC 9110, section 8.4.1.2), but some clients send it without its wrapper."""
    wrapped = len(data) >= 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
    return _inflate(data, limit, lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS))


def _inflate_gzip(data: bytes, limit: int) -> bytes:
    return _inflate(data, limit, lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS))


def _inflate_zstd(data: bytes, limit: int) -> bytes:
    return _inflate(data, limit, lambda: zstd.ZstdDecompressor(options=ZSTD_OPTIONS))


INFLATE: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _inflate_gzip,
    "x-gzip": _inflate_gzip,  # the same coding (RFC 9110, section 8.4.1.3)
    "deflate": _inflate_deflate,
    "zstd": _inflate_zstd,
}
