"""Refused batches by device and reason, and how long storing took, by the minute.

Pages may only read the first; the second belongs to no tenant, and they have no access to it.
"""

import django.db.models.deletion
from django.db import migrations, models

from tenants.tables import IsolateTable

UNCHECKED = {
    "db_constraint": False,
    "db_index": False,
    "on_delete": django.db.models.deletion.DO_NOTHING,
    "related_name": "+",
}


def key(*fields):
    return models.CompositePrimaryKey(*fields, blank=True, editable=False, primary_key=True, serialize=False)


class Migration(migrations.Migration):
    dependencies = [
        ("devices", "0001_initial"),
        ("ingest", "0002_counts_of_kinds"),
        ("tenants", "0003_roles"),
    ]

    operations = [
        migrations.CreateModel(
            name="LatencyCount",
            fields=[
                ("pk", key("minute", "milliseconds")),
                ("minute", models.DateTimeField(help_text="When it began.")),
                (
                    "milliseconds",
                    models.PositiveIntegerField(help_text="The longest time that is counted here."),
                ),
                ("requests", models.PositiveBigIntegerField()),
            ],
            options={"db_table": "latency_counts"},
        ),
        migrations.CreateModel(
            name="RefusalCount",
            fields=[
                ("pk", key("minute", "device", "code")),
                ("minute", models.DateTimeField(help_text="When it began.")),
                (
                    "code",
                    models.CharField(
                        help_text="That of the answer, but key_revoked or key_expired where the answer does not say.",
                        max_length=64,
                    ),
                ),
                ("requests", models.PositiveBigIntegerField()),
                ("device", models.ForeignKey(to="devices.device", **UNCHECKED)),
                ("tenant", models.ForeignKey(to="tenants.tenant", **UNCHECKED)),
            ],
            options={
                "db_table": "refusal_counts",
                "indexes": [
                    models.Index(fields=["device", "minute"], name="refusal_counts_device"),
                    models.Index(fields=["tenant", "minute"], name="refusal_counts_tenant"),
                ],
            },
        ),
        IsolateTable("refusal_counts", changes=()),
    ]
