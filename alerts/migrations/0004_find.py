"""Indexes for searching groups. Open groups are few, and closed ones are kept for years."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("alerts", "0003_console")]

    operations = [
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
