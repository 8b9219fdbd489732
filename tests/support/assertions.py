"""One assertion for the shape of every error."""

import httpx


def assert_problem(response: httpx.Response, status: int, code: str) -> list[dict[str, object]]:
    """Assert that `response` is our RFC 9457 problem with this status and code; return its `errors`."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert set(body) - {"errors"} == {"type", "title", "status", "code", "detail"}
    assert (body["type"], body["status"], body["code"]) == ("about:blank", status, code)
    assert body["title"]
    assert body["detail"]
    for error in body.get("errors", []):
        assert set(error) == {"index", "field", "code", "detail"}
    return body.get("errors", [])
