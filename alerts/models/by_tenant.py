"""Reads the newest or the next rows of all tenants of a user without reading those of the others."""

from typing import Any

from django.db import connection

# Each tenant's alerts by the index on (tenant, id), or its groups by the one on (tenant, revision). With "tenant = …",
# or one condition for all tenants, PostgreSQL expects to meet enough of them soon, and for quiet tenants it walks
# another index through everyone else's. Pairs are compared and ordered because only these indexes have their order.
OF_EACH_TENANT = """
SELECT row.id
  FROM memberships
 CROSS JOIN LATERAL (
    SELECT {table}.id, {table}.{place} AS place
      FROM {table} {join}
     WHERE ({table}.tenant_id, {table}.{place}) > (memberships.tenant_id, %s)
       AND ({table}.tenant_id, {table}.{place}) < (memberships.tenant_id + 1, 0) {only}
     ORDER BY {table}.tenant_id {order}, {table}.{place} {order}
     LIMIT %s) AS row
 WHERE memberships.user_id = %s
 ORDER BY row.place {order}
 LIMIT %s
"""


def reads_by_tenant(user: Any) -> bool:
    """Whether OF_EACH_TENANT fits: a superuser sees all, in the order of one index. SQLite has no LATERAL."""
    return connection.vendor == "postgresql" and user.is_active and not user.is_superuser
