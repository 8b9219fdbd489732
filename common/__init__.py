"""Helpers that every package may use. This one has no models and imports none of the others."""
