"""Groups for the alerts that are stored, and for those to come. The groups get the statuses that the alerts had."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import django.db.models.deletion
from django.db import migrations, models

from alerts.fingerprint import fingerprint
from tenants.tables import CreateTenantTable

Identity = tuple[int, bytes, bool]  # of a group: its tenant, its fingerprint, and whether its alerts are resolved

CHUNK_ROWS = 5000
SEVERITIES = ("info", "low", "medium", "high", "critical")
# Owned by the column: it is dropped with it, and watched with the sequences of ids (`common.sequences`).
CREATE_SEQUENCE = "CREATE SEQUENCE alert_groups_revision_seq AS bigint OWNED BY alert_groups.revision"
SET_SEQUENCE = """
SELECT setval('alert_groups_revision_seq', newest)
  FROM (SELECT max(revision) AS newest FROM alert_groups) AS groups
 WHERE newest IS NOT NULL
"""
SET_GROUPS = {
    "postgresql": """
        UPDATE security_alerts SET group_id = given.group_id
          FROM jsonb_to_recordset(%s) AS given (id bigint, group_id bigint) WHERE security_alerts.id = given.id
    """,
    "sqlite": """
        UPDATE security_alerts SET group_id = given.group_id
          FROM (SELECT json_extract(value, '$.id') AS id, json_extract(value, '$.group_id') AS group_id
                  FROM json_each(%s)) AS given
         WHERE security_alerts.id = given.id
    """,
}


def create_sequence(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(CREATE_SEQUENCE)


def group_alerts(apps: Any, schema_editor: Any) -> None:
    """One group for each fingerprint that has unresolved alerts, and one for each that has resolved ones."""
    model = apps.get_model("alerts", "AlertGroup")
    groups: dict[Identity, Any] = {}
    for identity, alert in itertools.chain.from_iterable(identified(apps)):
        if identity not in groups:
            groups[identity] = begin(model, identity, alert)
        join(groups[identity], alert)
    for revision, group in enumerate(sorted(groups.values(), key=lambda group: group.last_alert_id), start=1):
        group.revision = revision
    # In the order of their first alerts, as their ids will be.
    model.objects.bulk_create(groups.values(), batch_size=CHUNK_ROWS)
    name_previous(model, groups)
    with schema_editor.connection.cursor() as cursor:
        for rows in identified(apps):
            given = [{"id": alert.pk, "group_id": groups[identity].pk} for identity, alert in rows]
            cursor.execute(SET_GROUPS[schema_editor.connection.vendor], [json.dumps(given)])
        if schema_editor.connection.vendor == "postgresql":
            cursor.execute(SET_SEQUENCE)


def identified(apps: Any) -> Iterator[list[tuple[Identity, Any]]]:
    """All alerts in id order, each with what identifies its group."""
    alerts, last = apps.get_model("alerts", "SecurityAlert").objects.order_by("pk"), 0
    while chunk := list(alerts.filter(pk__gt=last)[:CHUNK_ROWS]):
        yield [(identity_of(alert), alert) for alert in chunk]
        last = chunk[-1].pk


def identity_of(alert: Any) -> Identity:
    same = fingerprint(alert.title, alert.source_ip, alert.destination_ip, alert.device_id)
    return alert.tenant_id, same, alert.status == "resolved"


def begin(model: Any, identity: Identity, alert: Any) -> Any:
    tenant_id, same, is_resolved = identity
    return model(
        tenant_id=tenant_id,
        fingerprint=same,
        title=alert.title,
        source_ip=alert.source_ip,
        destination_ip=alert.destination_ip,
        device_id=None if alert.source_ip or alert.destination_ip else alert.device_id,
        severity=alert.severity,
        status="closed" if is_resolved else "acknowledged",
        count=0,
        first_seen_at=alert.received_at,
        last_seen_at=alert.received_at,
    )


def join(group: Any, alert: Any) -> None:
    group.count += 1
    group.last_alert_id = alert.pk
    group.first_seen_at = min(group.first_seen_at, alert.received_at)
    group.last_seen_at = max(group.last_seen_at, alert.received_at)
    group.severity = max(group.severity, alert.severity, key=SEVERITIES.index)
    if alert.status == "open":
        group.status = "new"


def name_previous(model: Any, groups: dict[Identity, Any]) -> None:
    """Of two groups with the same fingerprint, the first is the one before the second."""
    later = []
    for (tenant_id, same, is_resolved), group in groups.items():
        other = groups.get((tenant_id, same, not is_resolved))
        if other and other.pk < group.pk:
            group.previous_id = other.pk
            later.append(group)
    model.objects.bulk_update(later, ["previous"], batch_size=500)


def return_statuses(apps: Any, schema_editor: Any) -> None:
    alerts, groups = (apps.get_model("alerts", name).objects for name in ("SecurityAlert", "AlertGroup"))
    alerts.filter(group__in=groups.filter(status__in=["acknowledged", "in_progress"])).update(status="acknowledged")
    alerts.filter(group__in=groups.filter(status="closed")).update(status="resolved")


UNCHECKED = {"db_constraint": False, "db_index": False, "on_delete": django.db.models.deletion.DO_NOTHING}


class Migration(migrations.Migration):
    dependencies = [("alerts", "0001_initial"), ("devices", "0001_initial"), ("tenants", "0001_initial")]

    operations = [
        CreateTenantTable(
            name="AlertGroup",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("fingerprint", models.BinaryField(help_text="See `alerts.fingerprint`.", max_length=16)),
                ("title", models.TextField()),
                ("source_ip", models.GenericIPAddressField(null=True)),
                ("destination_ip", models.GenericIPAddressField(null=True)),
                (
                    "severity",
                    models.CharField(
                        choices=[
                            ("info", "Info"),
                            ("low", "Low"),
                            ("medium", "Medium"),
                            ("high", "High"),
                            ("critical", "Critical"),
                        ],
                        help_text="The worst of its alerts.",
                        max_length=8,
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("new", "New"),
                            ("acknowledged", "Acknowledged"),
                            ("in_progress", "In progress"),
                            ("closed", "Closed"),
                        ],
                        default="new",
                        max_length=12,
                    ),
                ),
                (
                    "count",
                    models.PositiveBigIntegerField(
                        help_text="That arrived, including those deleted since.", verbose_name="alerts"
                    ),
                ),
                ("first_seen_at", models.DateTimeField(help_text="Our clock.", verbose_name="first seen")),
                ("last_seen_at", models.DateTimeField(help_text="Our clock.", verbose_name="last seen")),
                ("last_alert_id", models.BigIntegerField()),
                ("revision", models.BigIntegerField(unique=True)),
                (
                    "device",
                    models.ForeignKey(
                        help_text="Only if its alerts have no address.",
                        null=True,
                        related_name="+",
                        to="devices.device",
                        **UNCHECKED,
                    ),
                ),
                (
                    "previous",
                    models.ForeignKey(
                        help_text="The group before it with the same fingerprint. It may have been deleted.",
                        null=True,
                        related_name="+",
                        to="alerts.alertgroup",
                        **UNCHECKED,
                    ),
                ),
                ("tenant", models.ForeignKey(related_name="+", to="tenants.tenant", **UNCHECKED)),
            ],
            options={
                "db_table": "alert_groups",
                "ordering": ["-id"],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("status", "closed"), _negated=True),
                        fields=("tenant", "fingerprint"),
                        name="alert_groups_one_not_closed",
                    )
                ],
                "indexes": [
                    models.Index(fields=["tenant", "revision"], name="alert_groups_tenant_revision"),
                    models.Index(
                        condition=models.Q(("status", "closed")),
                        fields=["tenant", "fingerprint", "id"],
                        name="alert_groups_closed",
                    ),
                ],
            },
        ),
        migrations.RunPython(create_sequence, migrations.RunPython.noop),
        migrations.AddField(
            model_name="securityalert",
            name="group",
            field=models.ForeignKey(null=True, related_name="+", to="alerts.alertgroup", **UNCHECKED),
        ),
        migrations.RunPython(group_alerts, return_statuses),
        migrations.AlterField(
            model_name="securityalert",
            name="group",
            field=models.ForeignKey(related_name="+", to="alerts.alertgroup", **UNCHECKED),
        ),
        migrations.AddIndex(
            model_name="securityalert",
            index=models.Index(fields=["group", "id"], name="security_alerts_group_id"),
        ),
        migrations.RemoveField(model_name="securityalert", name="status"),
    ]
