"""Filters that analysts keep."""

from django.conf import settings
from django.db import models


class SavedFilter(models.Model):
    """A filter of the console, saved by its user under a name. It belongs to the user, whatever their tenants."""

    # Without an index of its own: that of the constraint begins with it.
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, db_index=False, related_name="+")
    name = models.CharField(max_length=80)
    query = models.CharField(max_length=2000, blank=True, help_text="The query string of the console's address.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "saved_filters"
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["user", "name"], name="saved_filters_name_once")]

    def __str__(self) -> str:
        return self.name
