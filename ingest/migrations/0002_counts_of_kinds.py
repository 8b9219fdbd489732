"""How many events of each kind a batch has, and an index of when batches arrived, for what is counted by time.

Servers from before it go on storing batches, without the counts.
"""

from django.db import migrations, models

from common.indexes import BlockIndex

COUNTS = {"telemetry": "telemetry", "log": "log", "discovery": "discoveries", "backup_event": "backup events"}


class Migration(migrations.Migration):
    dependencies = [("ingest", "0001_initial")]

    operations = [
        *(
            migrations.AddField("ingestbatch", f"{kind}_count", models.PositiveIntegerField(name, null=True))
            for kind, name in COUNTS.items()
        ),
        migrations.AddIndex("ingestbatch", BlockIndex(fields=["received_at"], name="ingest_batches_received_at")),
    ]
