"""The audit, which the database itself protects: not even the owner of the table may change or delete an entry.

The only exception is in the triggers, so that nobody needs to switch them off: entries about sign-ins, after a year.
"""

import django.core.serializers.json
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

from tenants.tables import IsolateTable, of_tenant, own

VERBS = [
    ("signed_in", "Signed in"),
    ("sign_in_failed", "Failed to sign in"),
    ("signed_out", "Signed out"),
    ("tenant_created", "Created a tenant"),
    ("tenant_changed", "Changed a tenant"),
    ("member_added", "Added a member"),
    ("member_changed", "Changed a member"),
    ("member_removed", "Removed a member"),
    ("user_created", "Created a user"),
    ("user_changed", "Changed a user"),
    ("user_deleted", "Deleted a user"),
    ("password_set", "Set a password"),
    ("group_created", "Created a group of users"),
    ("group_changed", "Changed a group of users"),
    ("group_deleted", "Deleted a group of users"),
    ("device_created", "Created a device"),
    ("device_registered", "Registered a device"),
    ("device_changed", "Changed a device"),
    ("device_key_issued", "Issued a device key"),
    ("device_key_rotated", "Rotated a device key"),
    ("device_key_revoked", "Revoked a device key"),
    ("provisioning_key_issued", "Issued a provisioning key"),
    ("provisioning_key_revoked", "Revoked a provisioning key"),
    ("suppression_rule_made", "Made a suppression rule"),
    ("suppression_rule_ended", "Ended a suppression rule"),
    ("rejected_batch_sent_again", "Sent a rejected batch again"),
    ("rejected_batch_downloaded", "Downloaded a rejected batch"),
    ("alerts_exported", "Exported groups of alerts"),
    ("list_exported", "Exported a list"),
    ("audit_exported", "Exported the audit"),
]
SIGN_INS = "'signed_in', 'sign_in_failed', 'signed_out'"
REFUSAL = "audit_entries is only added to"

# Not an exception of a class of its own: it reads like the refusal that the role of the pages gets.
KEEP_ON_POSTGRESQL = f"""
CREATE FUNCTION ingestcloud_keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND TG_LEVEL = 'ROW' THEN
    IF OLD.verb IN ({SIGN_INS}) AND OLD.at < now() - interval '365 days' THEN
      RETURN OLD;
    END IF;
  END IF;
  RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_entries_keep BEFORE UPDATE OR DELETE ON audit_entries
  FOR EACH ROW EXECUTE FUNCTION ingestcloud_keep_audit();
CREATE TRIGGER audit_entries_keep_all BEFORE TRUNCATE ON audit_entries
  FOR EACH STATEMENT EXECUTE FUNCTION ingestcloud_keep_audit();
"""
FORGET_ON_POSTGRESQL = """
DROP TRIGGER audit_entries_keep ON audit_entries;
DROP TRIGGER audit_entries_keep_all ON audit_entries;
DROP FUNCTION ingestcloud_keep_audit();
"""
KEEP_ON_SQLITE = (
    f"""
    CREATE TRIGGER audit_entries_keep BEFORE UPDATE ON audit_entries
    BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END
    """,
    f"""
    CREATE TRIGGER audit_entries_keep_all BEFORE DELETE ON audit_entries
    WHEN NOT (OLD.verb IN ({SIGN_INS}) AND OLD.at < datetime('now', '-365 days'))
    BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END
    """,
)
FORGET_ON_SQLITE = ("DROP TRIGGER audit_entries_keep", "DROP TRIGGER audit_entries_keep_all")


def keep(apps, schema_editor):
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    for statement in [KEEP_ON_POSTGRESQL] if is_postgresql else KEEP_ON_SQLITE:
        schema_editor.execute(statement, None)


def forget(apps, schema_editor):
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    for statement in [FORGET_ON_POSTGRESQL] if is_postgresql else FORGET_ON_SQLITE:
        schema_editor.execute(statement, None)


class Migration(migrations.Migration):
    dependencies = [("tenants", "0003_roles")]

    operations = [
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(default=django.utils.timezone.now, help_text="Our clock.")),
                (
                    "actor_kind",
                    models.CharField(
                        choices=[
                            ("user", "User"),
                            ("command", "Command"),
                            ("provisioning_key", "Provisioning key"),
                            ("nobody", "Nobody"),
                        ],
                        max_length=16,
                        verbose_name="who",
                    ),
                ),
                ("actor_id", models.BigIntegerField(null=True)),
                ("actor_name", models.TextField(blank=True)),
                (
                    "source",
                    models.GenericIPAddressField(help_text="The address that the request came from.", null=True),
                ),
                (
                    "request_id",
                    models.CharField(
                        blank=True, help_text="The X-Request-ID that the proxy gave it.", max_length=64
                    ),
                ),
                ("verb", models.CharField(choices=VERBS, max_length=32, verbose_name="what")),
                (
                    "object_type",
                    models.CharField(blank=True, help_text="A model, such as devices.device.", max_length=64),
                ),
                ("object_id", models.BigIntegerField(null=True)),
                ("object_name", models.TextField(blank=True, help_text="As it was then.")),
                (
                    "owner_type",
                    models.CharField(blank=True, help_text="What the object belongs to.", max_length=64),
                ),
                ("owner_id", models.BigIntegerField(null=True)),
                (
                    "before",
                    models.JSONField(
                        default=dict,
                        encoder=django.core.serializers.json.DjangoJSONEncoder,
                        help_text="Only what changed.",
                    ),
                ),
                (
                    "after",
                    models.JSONField(default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        help_text="None for what belongs to the site.",
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "audit entries",
                "db_table": "audit_entries",
                "ordering": ["-id"],
                "indexes": [
                    models.Index(fields=["object_type", "object_id"], name="audit_entries_object"),
                    models.Index(fields=["owner_type", "owner_id"], name="audit_entries_owner"),
                    models.Index(fields=["tenant", "id"], name="audit_entries_tenant"),
                    models.Index(
                        condition=models.Q(("verb__in", ("signed_in", "sign_in_failed", "signed_out"))),
                        fields=["at"],
                        name="audit_entries_sign_ins",
                    ),
                ],
            },
        ),
        # A user adds entries in their own name only.
        IsolateTable(
            "audit_entries",
            of_tenant(),
            changed=f"actor_kind = 'user' AND {own('actor_id')} AND ({of_tenant()})",
            changes=["INSERT"],
        ),
        migrations.RunPython(keep, forget),
    ]
