"""Security alerts, the groups in which people handle them, and what people do about groups."""

from alerts.models.alerts import SecurityAlert
from alerts.models.changes import GroupChange
from alerts.models.groups import SILENCE_SECONDS, AlertGroup, Disposition, Severity, Status
from alerts.models.saved_filters import SavedFilter
from alerts.models.searching import GroupSearchEntry
from alerts.models.suppression import SuppressionRule

__all__ = [
    "SILENCE_SECONDS",
    "AlertGroup",
    "Disposition",
    "GroupChange",
    "GroupSearchEntry",
    "SavedFilter",
    "SecurityAlert",
    "Severity",
    "Status",
    "SuppressionRule",
]
