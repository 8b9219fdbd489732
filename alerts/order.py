"""The lock that makes the order of alerts and of changes of their groups the order of their commits."""

from django.db import connection

from alerts.models import AlertGroup
from tenants.isolation import bypass_isolation

# An advisory lock, held from the first id or revision taken until the commit: without it they would not be in commit
# order, and a reader of "all after N" could skip one that is not visible yet. SQLite has only one writer anyway.
ORDER_LOCK = 0x5EC_A1E27

# Sets the sequence forward if it was set back, as `ahead` in `ingest.storing.postgresql` does: a reader that has seen
# a higher revision would never ask for a lower one.
NEXT_REVISIONS = """
WITH ahead AS MATERIALIZED (
  SELECT setval('alert_groups_revision_seq', newest)
    FROM (SELECT max(revision) AS newest FROM alert_groups) AS groups
   WHERE newest > (SELECT last_value FROM alert_groups_revision_seq)
)
SELECT nextval('alert_groups_revision_seq')
  FROM (SELECT count(*) FROM ahead) AS all_of_it
 CROSS JOIN generate_series(1, %s)
"""


def take_turn() -> None:
    """Wait for ORDER_LOCK and hold it until the transaction ends. What is read from now on stays true."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [ORDER_LOCK])


def next_revisions(count: int) -> list[int]:
    """The revisions for `count` changes of groups, by a transaction that has taken its turn."""
    if connection.vendor != "postgresql":
        # No row has a higher one, because retention keeps the group with the highest.
        newest = AlertGroup.objects.newest_revision()
        return list(range(newest + 1, newest + 1 + count))
    with bypass_isolation(), connection.cursor() as cursor:
        cursor.execute(NEXT_REVISIONS, [count])
        return [revision for (revision,) in cursor.fetchall()]
