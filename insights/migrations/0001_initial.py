"""When each periodic task last ran. Pages have no access to it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="LastRun",
            fields=[
                ("task", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("started_at", models.DateTimeField(null=True)),
                ("running_until", models.DateTimeField(help_text="Null if it has ended.", null=True)),
                (
                    "succeeded_at",
                    models.DateTimeField(help_text="When the last run that did not fail began.", null=True),
                ),
                ("took", models.DurationField(null=True)),
                ("error", models.TextField(default="", help_text="Why the last run failed, empty if it did not.")),
            ],
            options={"db_table": "worker_runs", "ordering": ["task"]},
        ),
    ]
