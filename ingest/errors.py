"""Why a batch is refused. Status and code are a retry contract: only 408, 429 and 503 are worth a retry."""

import math

from rest_framework import exceptions


class MalformedBatch(exceptions.APIException):
    """400: not a JSON array, or not readable at all."""

    status_code = 400
    default_code = "malformed_json"


class InvalidEvents(exceptions.APIException):
    """400: some events are wrong; `errors` says what by index and field, and `more` errors are not listed."""

    status_code = 400
    default_code = "invalid_events"

    def __init__(self, errors: list[dict[str, object]], bad_count: int, event_count: int, more: int = 0) -> None:
        self.errors, self.event_count = errors, event_count
        detail = f"{bad_count} event{'s are' if bad_count > 1 else ' is'} not valid. Nothing was stored."
        if more:
            detail += f" The first {len(errors)} errors are listed, and there are {more:,} more."
        super().__init__(detail)


class ModuleDisabled(exceptions.APIException):
    """403: the batch has events of a kind whose module is off for the tenant."""

    status_code = 403
    default_code = "module_disabled"

    def __init__(self, modules: set[str], event_count: int = 0) -> None:
        self.event_count = event_count
        names = ", ".join(sorted(modules))
        super().__init__(f"The tenant does not have this module enabled: {names}. Nothing was stored.")


class UnstorableBatch(exceptions.APIException):
    """400: the database refused a value that passed our own checks. Sent again, it would be refused again."""

    status_code = 400
    default_code = "unstorable"
    default_detail = "The database can't store a value of this batch. Nothing was stored."


class StoredInPart(exceptions.APIException):
    """200: the repeat of a lenient batch of which other events were good the first time, because a module was switched.

    If that were all of them, the answer is a 204 (`lenient_answer` in `ingest/views.py`).
    """

    status_code = 200
    default_code = "stored_in_part"
    default_detail = "Part of this batch was stored when it first arrived. The rest is kept as a rejected batch."

    def __init__(self, accepted: int) -> None:
        self.accepted = accepted
        super().__init__()


class IdempotencyKeyReused(exceptions.APIException):
    """422: the device has used the same Idempotency-Key for another body."""

    status_code = 422
    default_code = "idempotency_key_reused"
    default_detail = "This Idempotency-Key was used for another body. Nothing was stored."


class BodyTooLarge(exceptions.APIException):
    """413: the body, or what it inflates to, is over the limit."""

    status_code = 413
    default_code = "body_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is larger than {limit} bytes after decompression. Send smaller batches.")


class TooManyEvents(exceptions.APIException):
    """413: more events than a batch may have."""

    status_code = 413
    default_code = "too_many_events"

    def __init__(self, count: int, limit: int) -> None:
        self.event_count = count
        super().__init__(f"The batch has {count} events; at most {limit} are accepted. Send smaller batches.")


class TooManyValues(exceptions.APIException):
    """413: more JSON values than a batch may have."""

    status_code = 413
    default_code = "too_many_values"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The batch has more than {limit:,} JSON values. Send smaller batches.")


class UnsupportedContentType(exceptions.APIException):
    """415: the body is not declared as JSON."""

    status_code = 415
    default_code = "unsupported_content_type"
    default_detail = "Send the batch with Content-Type: application/json."


class UnsupportedContentEncoding(exceptions.APIException):
    """415: a content coding that we do not read (RFC 9110, section 8.4)."""

    status_code = 415
    default_code = "unsupported_content_encoding"
    default_detail = "Content-Encoding must be gzip, deflate, zstd or absent."
    headers = {"Accept-Encoding": "gzip, deflate, zstd"}


class BodyTooSlow(exceptions.APIException):
    """408: the body is still incomplete, and arrives too slowly to wait for."""

    status_code = 408
    default_code = "body_too_slow"
    default_detail = "The body did not arrive in time. Send the same bytes again, or smaller batches."
    headers = {"Connection": "close"}  # the rest of it must not be taken for a request


class RateLimited(exceptions.APIException):
    """429: the device sends more events a second than it may."""

    status_code = 429
    default_code = "rate_limited"
    default_detail = "The device is over its event limit. Send the same bytes again after Retry-After seconds."

    def __init__(self, wait: float) -> None:
        self.wait = math.ceil(wait)
        super().__init__()


class Overloaded(exceptions.APIException):
    """503: more batches wait to be stored than this process may hold."""

    status_code = 503
    default_code = "overloaded"
    default_detail = "More batches are waiting than this server may hold. Send the same bytes again."
    wait = 2  # seconds


class DeviceOverloaded(Overloaded):
    """503: the device has more in flight than one device may have; it does not hold up the others."""

    default_detail = (
        "The device sends more at once than one device may. Send the same bytes again, on fewer connections."
    )


class ClientDisconnected(Exception):  # noqa: N818  it is an event, and its name is ASGI's
    """The client disconnected before its request was complete; there is no one to answer."""
