"""Wires the rooms together: settings, URLs, the ASGI application."""
