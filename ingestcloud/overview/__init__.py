"""The front page of the admin: what a person on duty looks at first."""

from typing import Any

from django.http import HttpRequest

from ingestcloud.overview import cards, charts, tables

__all__ = ["dashboard"]


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add what the user may see. Nothing here reads more than counts and bounded lists, however large a table is."""
    return context | {
        "cards": list(cards.shown_to(request)),
        "period": charts.chosen_period(request),
        "periods": charts.PERIODS.values(),
        "charts": list(charts.shown_to(request)),
        "tables": list(tables.shown_to(request)),
    }
