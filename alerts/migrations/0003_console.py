"""What the analysts' console needs: history, assignees and dispositions of groups, suppression, saved filters."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from tenants.tables import IsolateAnew, IsolateTable, of_oneself, of_tenant, of_tenant_as, own

UNCHECKED = {"db_constraint": False, "db_index": False, "on_delete": django.db.models.deletion.DO_NOTHING}
BY_ANALYSTS = of_tenant_as("analyst", "admin")


class Migration(migrations.Migration):
    dependencies = [
        ("alerts", "0002_alert_groups"),
        ("devices", "0001_initial"),
        ("tenants", "0003_roles"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="GroupChange",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("operation", models.UUIDField()),
                ("undoes", models.UUIDField(help_text="The operation that this one undid.", null=True)),
                ("at", models.DateTimeField(help_text="Our clock.")),
                ("user_name", models.CharField(max_length=150)),
                (
                    "field",
                    models.CharField(
                        choices=[
                            ("status", "Status"),
                            ("disposition", "Disposition"),
                            ("assignee", "Assignee"),
                            ("note", "Note"),
                        ],
                        max_length=16,
                    ),
                ),
                ("before", models.TextField(blank=True)),
                ("after", models.TextField(blank=True, help_text="The new value; for a note, its text.")),
                ("group", models.ForeignKey(**UNCHECKED, related_name="+", to="alerts.alertgroup")),
                ("tenant", models.ForeignKey(**UNCHECKED, related_name="+", to="tenants.tenant")),
                ("user", models.ForeignKey(**UNCHECKED, related_name="+", to=settings.AUTH_USER_MODEL)),
            ],
            options={
                "db_table": "alert_group_changes",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="SavedFilter",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=80)),
                (
                    "query",
                    models.CharField(
                        blank=True, help_text="The query string of the console's address.", max_length=2000
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "db_table": "saved_filters",
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="SuppressionRule",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("title", models.TextField(blank=True, help_text="Empty: any title.")),
                (
                    "title_match",
                    models.CharField(
                        choices=[("equals", "Equals"), ("contains", "Contains")], default="equals", max_length=8
                    ),
                ),
                (
                    "source",
                    models.CharField(blank=True, help_text="An address or a network; empty: any.", max_length=43),
                ),
                (
                    "destination",
                    models.CharField(blank=True, help_text="An address or a network; empty: any.", max_length=43),
                ),
                (
                    "worst_severity",
                    models.CharField(
                        choices=[
                            ("info", "Info"),
                            ("low", "Low"),
                            ("medium", "Medium"),
                            ("high", "High"),
                            ("critical", "Critical"),
                        ],
                        help_text="Worse alerts are never suppressed.",
                        max_length=8,
                    ),
                ),
                ("reason", models.TextField()),
                ("created_at", models.DateTimeField(help_text="Our clock.")),
                ("created_by_name", models.CharField(max_length=150)),
                ("ends_at", models.DateTimeField(help_text="Our clock. At most 30 days after it was made.")),
                (
                    "ended_by_name",
                    models.CharField(blank=True, db_default="", help_text="Who ended it early.", max_length=150),
                ),
                ("created_by", models.ForeignKey(**UNCHECKED, related_name="+", to=settings.AUTH_USER_MODEL)),
                ("device", models.ForeignKey(null=True, **UNCHECKED, related_name="+", to="devices.device")),
                ("tenant", models.ForeignKey(**UNCHECKED, related_name="+", to="tenants.tenant")),
            ],
            options={
                "db_table": "suppression_rules",
                "ordering": ["-id"],
            },
        ),
        migrations.AddField(
            model_name="alertgroup",
            name="acknowledged_count",
            field=models.PositiveBigIntegerField(
                help_text="Its `count` when it was acknowledged last; of no meaning while it is new or closed.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="alertgroup",
            name="assignee",
            field=models.ForeignKey(null=True, **UNCHECKED, related_name="+", to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name="alertgroup",
            name="assignee_name",
            field=models.CharField(blank=True, db_default="", max_length=150),
        ),
        migrations.AddField(
            model_name="alertgroup",
            name="disposition",
            field=models.CharField(
                blank=True,
                choices=[
                    ("true_positive", "True positive"),
                    ("false_positive", "False positive"),
                    ("benign", "Benign"),
                    ("duplicate", "Duplicate"),
                ],
                db_default="",
                help_text="Empty unless it is closed.",
                max_length=16,
            ),
        ),
        migrations.AddField(
            model_name="alertgroup",
            name="status_changed_at",
            field=models.DateTimeField(help_text="By a person. Our clock.", null=True),
        ),
        migrations.AddField(
            model_name="alertgroup",
            name="status_changed_by",
            field=models.CharField(blank=True, db_default="", help_text="A user name.", max_length=150),
        ),
        migrations.AddField(
            model_name="alertgroup",
            name="suppressed_count",
            field=models.PositiveBigIntegerField(
                db_default=0,
                help_text="That arrived and were suppressed. A group without others is hidden.",
                verbose_name="suppressed alerts",
            ),
        ),
        migrations.AddField(
            model_name="alertgroup",
            name="version",
            field=models.PositiveIntegerField(
                db_default=0, help_text="How often people changed it. Alerts don't count."
            ),
        ),
        migrations.AlterField(
            model_name="alertgroup",
            name="count",
            field=models.PositiveBigIntegerField(
                help_text="That arrived and were not suppressed, including those deleted since.", verbose_name="alerts"
            ),
        ),
        migrations.AddIndex(
            model_name="alertgroup",
            index=models.Index(
                condition=models.Q(("assignee__isnull", False)),
                fields=["assignee", "revision"],
                name="alert_groups_assignee",
            ),
        ),
        migrations.AddField(
            model_name="securityalert",
            name="suppressed_by",
            field=models.ForeignKey(
                help_text="A suppressed alert is stored and counted, and never pushed to open pages.",
                null=True,
                **UNCHECKED,
                related_name="+",
                to="alerts.suppressionrule",
            ),
        ),
        migrations.RemoveIndex("alertgroup", "alert_groups_tenant_revision"),
        migrations.AddIndex(
            model_name="alertgroup",
            index=models.Index(
                condition=models.Q(("count__gt", 0)),
                fields=["tenant", "revision"],
                name="alert_groups_tenant_revision",
            ),
        ),
        migrations.AddIndex(
            model_name="securityalert",
            index=models.Index(
                condition=models.Q(("suppressed_by__isnull", False)),
                fields=["suppressed_by", "id"],
                name="security_alerts_suppressed",
            ),
        ),
        migrations.AddIndex(
            model_name="groupchange",
            index=models.Index(fields=["group", "id"], name="alert_group_changes_group"),
        ),
        migrations.AddConstraint(
            model_name="groupchange",
            constraint=models.UniqueConstraint(fields=("operation", "group", "field"), name="alert_group_changes_once"),
        ),
        migrations.AddConstraint(
            model_name="savedfilter",
            constraint=models.UniqueConstraint(fields=("user", "name"), name="saved_filters_name_once"),
        ),
        migrations.AddIndex(
            model_name="suppressionrule",
            index=models.Index(fields=["tenant", "ends_at"], name="suppression_rules_tenant_end"),
        ),
        IsolateTable("alert_group_changes", of_tenant(), changed=BY_ANALYSTS, changes=["INSERT"]),
        IsolateTable("suppression_rules", of_tenant(), changed=BY_ANALYSTS, changes=["INSERT", "UPDATE"]),
        IsolateTable("saved_filters", of_oneself(), changed=own()),
        IsolateAnew("alert_groups", changed=BY_ANALYSTS),
    ]
