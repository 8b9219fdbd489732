"""The tables of this room."""

from insights.models.runs import LastRun

__all__ = ["LastRun"]
