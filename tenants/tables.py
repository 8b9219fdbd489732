"""Migration operations that make a table together with the policy of whose rows people see in it.

A table that has a tenant, or a way to one, is made by `CreateTenantTable`, or `IsolateTable` is the next operation:
without it the role of the pages may not even read it, and a test fails. https://www.postgresql.org/docs/current/ddl-rowsecurity.html
"""

from typing import Any

from django.db import connections, migrations
from django.db.migrations.operations.base import Operation

from tenants.isolation import PEOPLE_ROLE

# Each function is asked once a query, not once a row.
OF_TENANT = "(SELECT ingestcloud_sees_all()) OR {column} = ANY ((SELECT ingestcloud_tenants())::bigint[])"
ALL = "SELECT, INSERT, UPDATE, DELETE"


def of_tenant(column: str = "tenant_id") -> str:
    """The rows whose tenant, in `column`, the user is a member of; all for a superuser."""
    return OF_TENANT.format(column=column)


class TableOperation(Operation):
    """Something that only PostgreSQL has, done to a table that is there."""

    reversible = True

    def __init__(self, table: str) -> None:
        self.table = table

    def state_forwards(self, app_label: str, state: Any) -> None:
        pass


class IsolateTable(TableOperation):
    """Lets people use `table`, and see and change there what `rows`, a condition in SQL, says."""

    def __init__(self, table: str, rows: str | None = None) -> None:
        super().__init__(table)
        self.rows = rows or of_tenant()

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return type(self).__name__, [self.table, self.rows], {}

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            return
        schema_editor.execute(f"DROP POLICY IF EXISTS people ON {self.table}")
        schema_editor.execute(f"CREATE POLICY people ON {self.table} TO {PEOPLE_ROLE} USING ({self.rows})")
        schema_editor.execute(f"ALTER TABLE {self.table} ENABLE ROW LEVEL SECURITY")
        schema_editor.execute(f"GRANT {ALL} ON {self.table} TO {PEOPLE_ROLE}")

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            return
        schema_editor.execute(f"REVOKE ALL ON {self.table} FROM {PEOPLE_ROLE}")
        schema_editor.execute(f"ALTER TABLE {self.table} DISABLE ROW LEVEL SECURITY")
        schema_editor.execute(f"DROP POLICY people ON {self.table}")

    def describe(self) -> str:
        return f"Isolate the tenants' rows in {self.table}"


class ShareTable(TableOperation):
    """Lets people read all rows of `table`, because they belong to no tenant."""

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return type(self).__name__, [self.table], {}

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(f"GRANT SELECT ON {self.table} TO {PEOPLE_ROLE}")

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(f"REVOKE ALL ON {self.table} FROM {PEOPLE_ROLE}")

    def describe(self) -> str:
        return f"Share {self.table}"


class CreateTenantTable(migrations.CreateModel):
    """`CreateModel` for a model with a tenant: the table and its policy are one."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        super().database_forwards(app_label, schema_editor, from_state, to_state)
        table = to_state.apps.get_model(app_label, self.name)._meta.db_table
        IsolateTable(table).database_forwards(app_label, schema_editor, from_state, to_state)


# What pages need of the tables of other apps. `django_session` and `axes_…` are written by logins.
SHARED = {
    "auth_user": ALL,
    "auth_group": ALL,
    "auth_permission": "SELECT",
    "auth_user_groups": ALL,
    "auth_user_user_permissions": ALL,
    "auth_group_permissions": ALL,
    "django_content_type": "SELECT",
    "django_admin_log": "SELECT, INSERT",
    "django_session": ALL,
    "axes_accessattempt": ALL,
    "axes_accessattemptexpiration": ALL,
    "axes_accessfailurelog": ALL,
    "axes_accesslog": ALL,
}


def grant_shared_tables(using: str, **kwargs: object) -> None:
    """Let PEOPLE_ROLE use the SHARED tables that are there: after each `migrate`, because other apps make them."""
    connection = connections[using]
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regrole(%s)", [PEOPLE_ROLE])
        if cursor.fetchone() == (None,):  # the migrations were taken back
            return
        cursor.execute("SELECT relname FROM pg_class WHERE relname = ANY(%s) AND relkind = 'r'", [list(SHARED)])
        for (table,) in cursor.fetchall():
            cursor.execute(f"GRANT {SHARED[table]} ON {connection.ops.quote_name(table)} TO {PEOPLE_ROLE}")
