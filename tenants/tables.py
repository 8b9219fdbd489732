"""Migration operations that create a table together with the policy that decides which rows people see in it.

Create a table that has a tenant, or leads to one, with `CreateTenantTable`, or follow its creation with `IsolateTable`:
otherwise the role of the pages may not even read it, and a test fails.
https://www.postgresql.org/docs/current/ddl-rowsecurity.html
"""

from collections.abc import Sequence
from typing import Any

from django.db import migrations
from django.db.migrations.operations.base import Operation

from tenants.isolation import PEOPLE_ROLE

# The subqueries make PostgreSQL call each function once per query, not once per row.
SEES_ALL = "(SELECT ingestcloud_sees_all())"
OF_TENANT = SEES_ALL + " OR {column} = ANY ((SELECT ingestcloud_tenants())::bigint[])"
OF_TENANT_AS = SEES_ALL + " OR {column} = ANY ((SELECT ingestcloud_tenants_as(ARRAY[{roles}]))::bigint[])"
OF_COLLEAGUE = SEES_ALL + " OR {column} = ANY ((SELECT ingestcloud_colleagues())::integer[])"
OWN = "{column} = (SELECT ingestcloud_user())"
CHANGES = ("INSERT", "UPDATE", "DELETE")


def of_tenant(column: str = "tenant_id") -> str:
    """The rows whose tenant, in `column`, the user is a member of; all rows for a superuser."""
    return OF_TENANT.format(column=column)


def of_tenant_as(*roles: str, column: str = "tenant_id") -> str:
    """The rows whose tenant, in `column`, the user is a member of in one of `roles`; all rows for a superuser."""
    return OF_TENANT_AS.format(column=column, roles=", ".join(f"'{role}'" for role in roles))


def of_colleague(column: str = "user_id") -> str:
    """The rows of the user, in `column`, and of all members of the user's tenants; all rows for a superuser."""
    return OF_COLLEAGUE.format(column=column)


def of_oneself(column: str = "user_id") -> str:
    """The rows of the user, in `column`; all rows for a superuser."""
    return f"{SEES_ALL} OR {own(column)}"


def own(column: str = "user_id") -> str:
    """The rows of the user, in `column`, for superusers too."""
    return OWN.format(column=column)


class TableOperation(Operation):
    """An operation on an existing table that has an effect only on PostgreSQL."""

    reversible = True

    def __init__(self, table: str) -> None:
        self.table = table

    def state_forwards(self, app_label: str, state: Any) -> None:
        pass


class IsolateTable(TableOperation):
    """Lets people see the rows of `table` for which `rows`, an SQL condition, is true.

    They may change the same rows, or those for which `changed` is true, with the commands in `changes`.
    """

    def __init__(
        self, table: str, rows: str | None = None, changed: str | None = None, changes: Sequence[str] = CHANGES
    ) -> None:
        super().__init__(table)
        self.rows = rows or of_tenant()
        self.changed = changed or self.rows
        self.changes = tuple(changes)

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            return
        for command, rows in self._policies().items():
            policy = f"people_{command.lower()} ON {self.table} FOR {command} TO {PEOPLE_ROLE}"
            schema_editor.execute(f"CREATE POLICY {policy} {'WITH CHECK' if command == 'INSERT' else 'USING'} ({rows})")
            schema_editor.execute(f"GRANT {command} ON {self.table} TO {PEOPLE_ROLE}")
        schema_editor.execute(f"ALTER TABLE {self.table} ENABLE ROW LEVEL SECURITY")

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            return
        schema_editor.execute(f"REVOKE ALL ON {self.table} FROM {PEOPLE_ROLE}")
        schema_editor.execute(f"ALTER TABLE {self.table} DISABLE ROW LEVEL SECURITY")
        for command in self._policies():
            schema_editor.execute(f"DROP POLICY people_{command.lower()} ON {self.table}")

    def _policies(self) -> dict[str, str]:
        return {"SELECT": self.rows, **dict.fromkeys(self.changes, self.changed)}

    def describe(self) -> str:
        return f"Isolate the rows of tenants and people in {self.table}"


class IsolateAnew(IsolateTable):
    """Gives an isolated table other conditions. They replace those that `IsolateTable(table)` gives by default."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        self._alter(schema_editor, self._policies())

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        self._alter(schema_editor, self.before._policies())

    def __init__(self, table: str, before: IsolateTable | None = None, **conditions: Any) -> None:
        super().__init__(table, **conditions)
        self.before = before or IsolateTable(table)

    def _alter(self, schema_editor: Any, policies: dict[str, str]) -> None:
        if schema_editor.connection.vendor != "postgresql":
            return
        for command, rows in policies.items():
            policy = f"people_{command.lower()} ON {self.table}"
            schema_editor.execute(f"ALTER POLICY {policy} {'WITH CHECK' if command == 'INSERT' else 'USING'} ({rows})")

    def describe(self) -> str:
        return f"Change who may change what in {self.table}"


class ShareTable(TableOperation):
    """Lets people read all rows of `table`, because they belong to no tenant."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(f"GRANT SELECT ON {self.table} TO {PEOPLE_ROLE}")

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(f"REVOKE ALL ON {self.table} FROM {PEOPLE_ROLE}")

    def describe(self) -> str:
        return f"Share {self.table}"


class CreateTenantTable(migrations.CreateModel):
    """`CreateModel` for a model with a tenant: creates the table together with its policy."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        super().database_forwards(app_label, schema_editor, from_state, to_state)
        table = to_state.apps.get_model(app_label, self.name)._meta.db_table
        IsolateTable(table).database_forwards(app_label, schema_editor, from_state, to_state)
