"""The tables of this room."""

from insights.models.runs import LastRun
from insights.models.usage import COUNTS, DeviceHour, DeviceMinute, TenantHour, TenantMinute, Usage

__all__ = ["COUNTS", "DeviceHour", "DeviceMinute", "LastRun", "TenantHour", "TenantMinute", "Usage"]
