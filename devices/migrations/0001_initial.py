import django.core.validators
import django.db.models.deletion
from django.db import migrations, models

import common.text
from tenants.tables import CreateTenantTable, IsolateTable


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("tenants", "0001_initial"),
    ]

    operations = [
        CreateTenantTable(
            name="ProvisioningKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "prefix",
                    models.CharField(
                        editable=False, help_text="How the key starts, to tell keys apart.", max_length=12
                    ),
                ),
                ("digest", models.CharField(editable=False, max_length=64, unique=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("expires_at", models.DateTimeField(blank=True, null=True, verbose_name="expires (UTC)")),
                ("revoked_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("last_used_at", models.DateTimeField(blank=True, editable=False, null=True)),
                (
                    "label",
                    models.CharField(
                        help_text="What it is for, such as the site or the delivery.",
                        max_length=200,
                        validators=[common.text.printable],
                    ),
                ),
                (
                    "usage_limit",
                    models.PositiveIntegerField(
                        default=1,
                        help_text="How many devices may register with it.",
                        validators=[django.core.validators.MinValueValidator(1)],
                    ),
                ),
                ("use_count", models.PositiveIntegerField(default=0, editable=False)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="provisioning_keys",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "db_table": "provisioning_keys",
                "ordering": ["-created_at", "-id"],
                "abstract": False,
            },
        ),
        CreateTenantTable(
            name="Device",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=200, validators=[common.text.printable])),
                ("type", models.CharField(blank=True, max_length=100, validators=[common.text.printable])),
                ("location", models.CharField(blank=True, max_length=200, validators=[common.text.printable])),
                (
                    "events_per_second",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="Long-run limit, not counting alerts. 0: no limit. Empty: the site's limit.",
                        null=True,
                    ),
                ),
                (
                    "burst",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="How many events it may send at once before that limit applies. Empty: the site's limit.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(1)],
                    ),
                ),
                (
                    "registered_with",
                    models.ForeignKey(
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="devices",
                        to="devices.provisioningkey",
                    ),
                ),
                ("registration_digest", models.CharField(editable=False, max_length=64, null=True)),
                ("registration_repeats", models.PositiveSmallIntegerField(db_default=0, default=0, editable=False)),
                ("registration_repeated_at", models.DateTimeField(editable=False, null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("last_seen_at", models.DateTimeField(blank=True, editable=False, null=True)),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="devices",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "db_table": "devices",
                "ordering": ["tenant__slug", "name"],
                "constraints": [
                    models.UniqueConstraint(fields=("tenant", "name"), name="devices_name_unique_in_tenant")
                ],
            },
        ),
        migrations.CreateModel(
            name="DeviceKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "prefix",
                    models.CharField(
                        editable=False, help_text="How the key starts, to tell keys apart.", max_length=12
                    ),
                ),
                ("digest", models.CharField(editable=False, max_length=64, unique=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("expires_at", models.DateTimeField(blank=True, null=True, verbose_name="expires (UTC)")),
                ("revoked_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("last_used_at", models.DateTimeField(blank=True, editable=False, null=True)),
                (
                    "device",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="keys", to="devices.device"
                    ),
                ),
            ],
            options={
                "db_table": "device_keys",
                "ordering": ["-created_at", "-id"],
                "abstract": False,
            },
        ),
        IsolateTable("device_keys", "device_id IN (SELECT id FROM devices)"),  # which has a policy
    ]
