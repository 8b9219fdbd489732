"""How many rows the statements of a test read, by the plans of PostgreSQL: unlike times, they are always the same."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection


@contextmanager
def rows_read_of(table: str) -> Iterator[list[int]]:
    """A list, with how many rows of `table` each SELECT reads, whether or not a filter removes them."""
    counts: list[int] = []

    def explain(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if sql.startswith("SELECT") and f'"{table}"' in sql:
            execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params, many, context)
            (plan,) = context["cursor"].fetchone()
            plan = plan if isinstance(plan, list) else json.loads(plan)
            counts.append(sum(_scanned(table, plan[0]["Plan"])))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        yield counts
    assert counts


def _scanned(table: str, plan: dict[str, Any]) -> Iterator[int]:
    if plan.get("Relation Name") == table:
        yield int((plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"])
    for part in plan.get("Plans", []):
        yield from _scanned(table, part)
