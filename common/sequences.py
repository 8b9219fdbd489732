"""PostgreSQL sequences that are behind their tables: every number that they return is taken.

This happens after a switch-over by logical replication, which does not carry sequences, or after rows were inserted by
hand.
"""

import logging
from collections.abc import Collection

from django.db import IntegrityError, connection, transaction
from django.db.backends.utils import CursorWrapper

logger = logging.getLogger(__name__)

# Every sequence that a column owns, in partitioned tables too, and in the tables of all apps.
OWNED = """
SELECT sequence.oid::regclass::text, owner.oid::regclass::text, quote_ident(attname)
  FROM pg_depend
  JOIN pg_class AS sequence ON sequence.oid = objid AND sequence.relkind = 'S'
  JOIN pg_class AS owner ON owner.oid = refobjid
  JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
 WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
   AND pg_table_is_visible(owner.oid)
 ORDER BY 2
"""
BEHIND = """
SELECT '{table}'
 WHERE (SELECT last_value + is_called::int FROM {sequence}) <= (SELECT max({column}) FROM {table})
"""
# Leaves room for ids that others take meanwhile.
SET_FORWARD = """
SELECT setval('{sequence}', newest + 1000)
  FROM (SELECT max({column}) AS newest FROM {table}) AS rows
 WHERE newest >= (SELECT last_value + is_called::int FROM {sequence})
"""
LOCK = 0x5EC_5E9  # an advisory lock: of two processes that set a sequence forward, the second sees what the first did


def behind() -> list[str]:
    """The tables whose sequence is behind."""
    with connection.cursor() as cursor:
        owned = _owned(cursor)
        cursor.execute(" UNION ".join(BEHIND.format(**each) for each in owned))
        return [table for (table,) in cursor.fetchall()]


def set_forward(among: Collection[str] = ()) -> list[str]:
    """Set the sequences of the tables `among`, by default of all, forward if they are behind.

    Logs and returns the names of their tables. Databases other than PostgreSQL have no sequences.
    """
    if connection.vendor != "postgresql":
        return []
    tables: list[str] = []  # a table may have two
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        for each in _owned(cursor):
            if among and each["table"] not in among:
                continue
            cursor.execute(SET_FORWARD.format(**each))
            if cursor.fetchone() and each["table"] not in tables:
                tables.append(each["table"])
    if tables:
        logger.error("The sequence was behind the table, and was set forward: %s", ", ".join(tables))
    return tables


def is_taken_id(error: IntegrityError) -> bool:
    """Whether a row was refused because its id is taken, and not by another constraint."""
    diagnosis = getattr(error.__cause__, "diag", None)
    return bool(diagnosis and diagnosis.constraint_name and diagnosis.constraint_name.endswith("_pkey"))


def _owned(cursor: CursorWrapper) -> list[dict[str, str]]:
    cursor.execute(OWNED)
    return [dict(zip(("sequence", "table", "column"), row, strict=True)) for row in cursor.fetchall()]
