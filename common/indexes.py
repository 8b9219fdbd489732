"""Indexes that differ between databases."""

from typing import Any

from django.contrib.postgres.indexes import BrinIndex
from django.db import models

PAGES_PER_RANGE = 16


class BlockIndex(models.Index):
    """For a column that grows with the table: PostgreSQL notes its bounds for each block of rows, which costs next to
    nothing to write. SQLite has only ordinary indexes.

    https://www.postgresql.org/docs/current/brin.html
    """

    def create_sql(self, model: type[models.Model], schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        """What creates the index in the database of `schema_editor`."""
        if schema_editor.connection.vendor != "postgresql":
            return super().create_sql(model, schema_editor, using, **kwargs)
        brin = BrinIndex(fields=self.fields, name=self.name, autosummarize=True, pages_per_range=PAGES_PER_RANGE)
        return brin.create_sql(model, schema_editor, **kwargs)
