from django.core.validators import MinValueValidator
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("devices", "0002_retention")]

    operations = [
        migrations.AddField(
            "device",
            "events_per_second",
            models.PositiveIntegerField(
                null=True,
                blank=True,
                help_text="What it may send in the long run, alerts not counted. 0: any. Empty: the site's limit.",
            ),
        ),
        migrations.AddField(
            "device",
            "burst",
            models.PositiveIntegerField(
                null=True,
                blank=True,
                validators=[MinValueValidator(1)],
                help_text="How many events it may send at once before that limit holds. Empty: the site's limit.",
            ),
        ),
    ]
