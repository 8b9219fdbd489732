"""How much was received, by device and by tenant, in each minute and each hour. Pages may only read it."""

import django.db.models.deletion
from django.db import migrations, models

from tenants.tables import IsolateTable

COUNTS = {
    "batches": None,
    "events": None,
    "telemetry": None,
    "log": None,
    "security_alert": "alerts",
    "discovery": "discoveries",
    "backup_event": "backup events",
}


def unchecked(to):
    return models.ForeignKey(
        db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name="+", to=to
    )


def create(name, table, owner):
    """The operations that create one of the tables, whose key is `owner` and the start of the period."""
    key = models.CompositePrimaryKey(owner, "start", blank=True, editable=False, primary_key=True, serialize=False)
    fields = [
        ("start", models.DateTimeField(help_text="When the period began.")),
        *((count, models.PositiveBigIntegerField(label)) for count, label in COUNTS.items()),
        ("bytes", models.PositiveBigIntegerField(help_text="Of the inflated bodies.")),
        ("pk", key),
        *([("device", unchecked("devices.device"))] if owner == "device" else []),
        ("tenant", unchecked("tenants.tenant")),
    ]
    indexes = [models.Index(fields=["start"], name=f"{table}_start")]
    return [
        migrations.CreateModel(name, fields, options={"db_table": table, "indexes": indexes}),
        IsolateTable(table, changes=()),
    ]


class Migration(migrations.Migration):
    dependencies = [
        ("devices", "0001_initial"),
        ("insights", "0001_initial"),
        ("tenants", "0003_roles"),
    ]

    operations = [
        *create("DeviceMinute", "device_minutes", "device"),
        *create("DeviceHour", "device_hours", "device"),
        *create("TenantMinute", "tenant_minutes", "tenant"),
        *create("TenantHour", "tenant_hours", "tenant"),
    ]
