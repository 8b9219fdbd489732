"""Who may send: devices and their keys."""
