"""Indexes that lead from a device to its batches, and from a batch to its events.

Devices go on sending meanwhile: each index is built beside the writers, on `ingest_events` one partition after the
other. If the migration is interrupted, run it again.
"""

from django.db import migrations, models

from ingest.partitions import add_index, drop_index

EVENTS_OF_BATCH = models.Index(fields=["batch"], name="ingest_events_batch")
BATCHES_OF_DEVICE = models.Index(fields=["device", "id"], name="ingest_batches_device")
# Ids of batches grow with those of events, so a summary of every few pages finds a batch at a hundredth of the size of
# a tree, and at next to no cost for writers. The pages that were written last are read whole until they are summarized.
SUMMARIES = "USING brin (batch_id) WITH (pages_per_range = 16, autosummarize = on)"


class AddIndexOnline(migrations.AddIndex):
    """`AddIndex` beside the writers, on PostgreSQL, where such a statement can't be part of a transaction."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor != "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        # What an interrupted attempt left behind has the name, but is no index that a query could use.
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {self.index.name}")
        model = to_state.apps.get_model(app_label, self.model_name)
        schema_editor.add_index(model, self.index, concurrently=True)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor != "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)
            return
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {self.index.name}")


class AddIndexToPartitions(migrations.AddIndex):
    """`AddIndex` for the summaries of `ingest_events` on PostgreSQL; elsewhere it is an ordinary index."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor != "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        add_index(self.index.name, SUMMARIES)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor != "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)
            return
        drop_index(self.index.name)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("ingest", "0003_counts_by_the_minute")]

    operations = [
        AddIndexOnline("ingestbatch", BATCHES_OF_DEVICE),
        AddIndexToPartitions("ingestevent", EVENTS_OF_BATCH),
    ]
