"""People may use the tables that pages need, and no other; the members of a tenant are its own too."""

from django.db import migrations

from devices.isolation import PEOPLE
from devices.tenant_tables import IsolateTable, of_tenant

# As the tables' owner: the members have a policy now that asks these very functions.
FUNCTIONS = ("ingestcloud_sees_all()", "ingestcloud_tenants()")
TENANT_TABLES = (
    "devices_tenant_members", "devices_device", "devices_provisioningkey", "ingest_batches", "ingest_events",
    "rejected_batches", "security_alerts",
)  # fmt: skip


def as_their_owner(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        for function in FUNCTIONS:
            schema_editor.execute(f"ALTER FUNCTION {function} SECURITY DEFINER SET search_path FROM CURRENT")
        schema_editor.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema_of(schema_editor)} FROM {PEOPLE}")


def as_their_caller(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        for function in FUNCTIONS:
            schema_editor.execute(f"ALTER FUNCTION {function} SECURITY INVOKER RESET search_path")


def schema_of(schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT current_schema()::regnamespace::text")
        return cursor.fetchone()[0]


class Migration(migrations.Migration):
    dependencies = [
        ("ingestcloud", "0001_row_level_security"),
        ("devices", "0006_registration_repeats"),
        ("ingest", "0005_unnamed_batches"),
    ]
    operations = [
        migrations.RunPython(as_their_owner, as_their_caller),
        IsolateTable("devices_tenant", of_tenant("id")),
        IsolateTable("devices_devicekey", "device_id IN (SELECT id FROM devices_device)"),  # which has a policy
        *map(IsolateTable, TENANT_TABLES),
    ]
