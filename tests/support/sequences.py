"""Sequences that are behind their tables."""

from django.db import connection


def set_back(table: str) -> None:
    """Set the sequence back, as after a switch-over by logical replication, which does not carry sequences."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT min(id) FROM {table}))")
