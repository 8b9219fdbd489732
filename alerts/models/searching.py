"""What searches of groups read instead of the groups themselves."""

from django.db import models

from alerts.models.groups import AlertGroup
from tenants.models import TenantOwned


class GroupSearchEntry(TenantOwned):
    """What is searched for in a group and never changes.

    A table of its own, because every alert writes each index of its group. Entries are added a moment after their group
    (see `alerts.searching`), only on PostgreSQL. Where it has the extensions, words are found by trigrams:
    https://www.postgresql.org/docs/current/pgtrgm.html
    """

    group = models.OneToOneField(
        AlertGroup, primary_key=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    title = models.TextField()
    source_ip = models.GenericIPAddressField(null=True)
    destination_ip = models.GenericIPAddressField(null=True)

    class Meta:
        db_table = "alert_group_search"
        indexes = [
            models.Index(fields=["source_ip", "tenant"], name="alert_group_search_source"),
            models.Index(fields=["destination_ip", "tenant"], name="alert_group_search_dest"),
        ]

    def __str__(self) -> str:
        return self.title
