"""Short queries of the endpoint: of keys, and of what was refused."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from common.buckets import Buckets
from common.database import QueryThreads

P = ParamSpec("P")
T = TypeVar("T")

run_query = QueryThreads("ingest-query", 4).run
_run_unlikely_query = QueryThreads("ingest-unlikely", 1).run

# By address, and filled by wrong keys alone: beyond it, keys from there are looked up one at a time. They are not
# refused, because good devices may be behind the same address.
wrong_keys = Buckets(rate=1, burst=50)


async def run_key_query(source: str, query: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """As `QueryThreads.run`, for the look-up of a key that came from the address `source`."""
    run = _run_unlikely_query if wrong_keys.is_empty(source) else run_query
    return await run(query, *arguments, **keywords)
