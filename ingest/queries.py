"""Runs the endpoint's short queries: looking up keys, and recording refusals."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from common.buckets import Buckets
from common.database import QueryThreads

P = ParamSpec("P")
T = TypeVar("T")

run_query = QueryThreads("ingest-query", 4).run
_run_unlikely_query = QueryThreads("ingest-unlikely", 1).run

# By address (`network_of`), and drained by wrong keys alone. Once a bucket is empty, keys from its address are looked
# up one at a time. They are not refused, because good devices may be behind the same address.
wrong_keys = Buckets(rate=1, burst=50)


async def run_key_query(source: str, query: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Like `QueryThreads.run`, to look up a key that came from the network `source`."""
    run = _run_unlikely_query if wrong_keys.is_empty(source) else run_query
    return await run(query, *arguments, **keywords)
