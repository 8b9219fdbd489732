"""A table for searches of groups, which repeats of an alert do not write."""

import django.db.models.deletion
from django.db import migrations, models

from tenants.tables import IsolateTable

UNCHECKED = {"db_constraint": False, "on_delete": django.db.models.deletion.DO_NOTHING}
# Groups that are stored meanwhile have higher ids, and get their entries later.
FILL = """
INSERT INTO alert_group_search (group_id, tenant_id, title, source_ip, destination_ip)
SELECT id, tenant_id, title, source_ip, destination_ip FROM alert_groups
"""
EXTENSIONS = ("pg_trgm", "btree_gin")
# Entries are added in the background, so the index need not be quick to write: a list of pending ones would slow the
# searches.
INDEX_TITLES = """
CREATE INDEX alert_group_search_words ON alert_group_search
 USING gin (tenant_id, upper(title) gin_trgm_ops) WITH (fastupdate = off)
"""
# Without, the planner takes every word for a rare one, and sorts all groups rather than read the latest.
ESTIMATE_TITLES = "CREATE STATISTICS alert_groups_title ON upper(title) FROM alert_groups"
FORGET_TITLES = "DROP STATISTICS alert_groups_title"


def fill(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(FILL)


def estimate_titles(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(ESTIMATE_TITLES)


def forget_titles(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(FORGET_TITLES)


def index_titles(apps, schema_editor):
    """Index the trigrams of titles if PostgreSQL has the extensions and this role may create them."""
    if schema_editor.connection.vendor == "postgresql" and all(may_have(schema_editor, name) for name in EXTENSIONS):
        schema_editor.execute(INDEX_TITLES)


def may_have(schema_editor, extension):
    """Create the extension if need be. Whether it is there."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_extension WHERE extname = %s", [extension])
        if cursor.fetchone():
            return True
        cursor.execute(
            """SELECT rolsuper OR versions.trusted AND has_database_privilege(current_database(), 'CREATE')
                 FROM pg_available_extension_versions AS versions, pg_roles
                WHERE versions.name = %s AND rolname = current_user""",
            [extension],
        )
        allowed = any(may for (may,) in cursor.fetchall())
    if allowed:
        schema_editor.execute(f"CREATE EXTENSION {extension}")
    return allowed


class Migration(migrations.Migration):
    dependencies = [
        ("alerts", "0003_console"),
        ("tenants", "0003_roles"),
    ]

    operations = [
        migrations.CreateModel(
            name="GroupSearchEntry",
            fields=[
                (
                    "group",
                    models.OneToOneField(
                        **UNCHECKED, primary_key=True, related_name="+", serialize=False, to="alerts.alertgroup"
                    ),
                ),
                ("title", models.TextField()),
                ("source_ip", models.GenericIPAddressField(null=True)),
                ("destination_ip", models.GenericIPAddressField(null=True)),
                ("tenant", models.ForeignKey(**UNCHECKED, db_index=False, related_name="+", to="tenants.tenant")),
            ],
            options={"db_table": "alert_group_search"},
        ),
        IsolateTable("alert_group_search", changes=[]),
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.AddIndex(
            model_name="groupsearchentry",
            index=models.Index(fields=["source_ip", "tenant"], name="alert_group_search_source"),
        ),
        migrations.AddIndex(
            model_name="groupsearchentry",
            index=models.Index(fields=["destination_ip", "tenant"], name="alert_group_search_dest"),
        ),
        migrations.RunPython(index_titles, migrations.RunPython.noop),
        migrations.RunPython(estimate_titles, forget_titles),
    ]
