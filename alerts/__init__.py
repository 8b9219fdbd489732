"""Security alerts: stored, broadcast, shown in the console."""
