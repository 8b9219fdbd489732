"""Indexes for searching groups. Open groups are few, and closed ones are kept for years."""

from django.db import NotSupportedError, ProgrammingError, migrations, models, transaction

# `title__icontains` compares in upper case. The extension is one that the owner of a database may create since
# PostgreSQL 13; without it (docs/operations.md) a search reads every group of the tenant.
EXTENSION = "CREATE EXTENSION IF NOT EXISTS pg_trgm"
TITLES = "CREATE INDEX alert_groups_title_words ON alert_groups USING gin (upper(title) gin_trgm_ops)"


def index_titles(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    try:
        with transaction.atomic(schema_editor.connection.alias):
            schema_editor.execute(EXTENSION)
    except (ProgrammingError, NotSupportedError):  # we may not; the server does not have it
        return
    schema_editor.execute(TITLES)


def drop_index(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP INDEX IF EXISTS alert_groups_title_words")


class Migration(migrations.Migration):
    dependencies = [("alerts", "0003_console")]

    operations = [
        migrations.RunPython(index_titles, drop_index),
        migrations.AddIndex(
            "alertgroup",
            models.Index(fields=["source_ip"], condition=models.Q(source_ip__isnull=False), name="alert_groups_source"),
        ),
        migrations.AddIndex(
            "alertgroup",
            models.Index(
                fields=["destination_ip"],
                condition=models.Q(destination_ip__isnull=False),
                name="alert_groups_destination",
            ),
        ),
        migrations.AddIndex(
            "alertgroup",
            models.Index(
                fields=["tenant", "revision"],
                include=["id", "status", "severity", "count"],
                condition=~models.Q(status="closed"),
                name="alert_groups_open",
            ),
        ),
    ]
