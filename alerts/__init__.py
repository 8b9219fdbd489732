"""Security alerts: stored, broadcast, shown on the live page."""
