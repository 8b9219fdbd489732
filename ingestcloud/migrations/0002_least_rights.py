"""People may use the tables that pages need, and no other; the members of a tenant are its own too."""

from django.db import migrations

from devices.isolation import PEOPLE
from devices.tenant_tables import ALL, IsolateTable

# As the tables' owner: the members have a policy now that asks these very functions.
FUNCTIONS = ("ingestcloud_sees_all()", "ingestcloud_tenants()")
# Those that have a policy already.
TENANT_TABLES = (
    "devices_tenant", "devices_devicekey", "devices_device", "devices_provisioningkey", "ingest_batches",
    "ingest_events", "rejected_batches", "security_alerts",
)  # fmt: skip


def grant_least(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    for function in FUNCTIONS:
        schema_editor.execute(f"ALTER FUNCTION {function} SECURITY DEFINER SET search_path FROM CURRENT")
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT current_schema()::regnamespace::text")
        (schema,) = cursor.fetchone()
    schema_editor.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {PEOPLE}")
    schema_editor.execute(f"GRANT {ALL} ON {', '.join(TENANT_TABLES)} TO {PEOPLE}")


def grant_as_before(apps, schema_editor):
    """The release before grants the tables of all models after each `migrate`."""
    if schema_editor.connection.vendor == "postgresql":
        for function in FUNCTIONS:
            schema_editor.execute(f"ALTER FUNCTION {function} SECURITY INVOKER RESET search_path")


class Migration(migrations.Migration):
    dependencies = [
        ("ingestcloud", "0001_row_level_security"),
        ("devices", "0006_registration_repeats"),
        ("ingest", "0005_unnamed_batches"),
    ]
    operations = [
        migrations.RunPython(grant_least, grant_as_before),
        IsolateTable("devices_tenant_members"),
    ]
