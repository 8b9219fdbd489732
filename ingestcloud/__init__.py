"""Wires the rooms together: settings, addresses, the ASGI application."""
