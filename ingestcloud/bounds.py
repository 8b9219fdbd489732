"""What a connection may send, how long it may take, and the answers to a connection that exceeds it."""

from http import HTTPStatus

from common.problems import CONTENT_TYPE, problem_body

HEAD_BYTES = 64 * 1024  # for a request's line and headers; and as much again for trailers and the framing of its body
MAX_HEADERS = 128  # each costs far more to handle than to send
HEAD_SECONDS = 10.0  # without a byte of a head, and for a head to arrive after its first byte
SMALL_CHUNKS = 1000  # in a body, plus one for each CHUNK_BYTES of it
CHUNK_BYTES = 64
LATE_BYTES = 64 * 1024  # of a body that are still read after its answer, so that the connection can be kept
LINGER_SECONDS = 5.0  # how long a connection is still read from: if closed at once, it is reset and may lose the answer
STALLED_SECONDS = 30.0  # how long a client may read nothing of its answer


def _problem(status: HTTPStatus, code: str, detail: str) -> bytes:
    """A whole response, after which the connection is closed."""
    body = problem_body(status, code, detail).encode()
    retry = "retry-after: 5\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {CONTENT_TYPE}\r\n"
        f"x-content-type-options: nosniff\r\n{retry}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


INVALID = _problem(HTTPStatus.BAD_REQUEST, "invalid_request", "This is not an HTTP/1.1 request.")
SMALL = _problem(HTTPStatus.BAD_REQUEST, "chunks_too_small", "The body has too many small chunks or trailers.")
TOO_LARGE = _problem(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "headers_too_large",
    f"A request may have at most {MAX_HEADERS} headers, of at most {HEAD_BYTES} bytes in total.",
)
TOO_SLOW = _problem(
    HTTPStatus.REQUEST_TIMEOUT, "headers_too_slow", "The headers of the request did not arrive in time."
)
TOO_MANY = _problem(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", "The server has no connection to spare.")


class Refused(Exception):  # noqa: N818  not an error: it ends the parsing
    """A request exceeds a bound. `answer` says which one."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self.answer = answer
