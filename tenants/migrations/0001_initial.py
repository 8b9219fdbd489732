"""Tenants and their members, and what row-level security needs. `tenants/isolation.py` explains it."""

import django.core.validators
import django.db.models.deletion
from django.conf import settings
from django.db import ProgrammingError, migrations, models, transaction

import common.text
from tenants.isolation import PEOPLE_ROLE
from tenants.tables import SEES_ALL, IsolateTable, ShareTable, of_colleague, of_oneself, of_tenant, own

# The creator of a role may not switch to it before the grant (PostgreSQL 16 and later). Roles belong to the whole
# server, so the migrations of another database may have created this one already.
ROLE = f"""
DO $$ BEGIN
  IF to_regrole('{PEOPLE_ROLE}') IS NULL THEN
    CREATE ROLE {PEOPLE_ROLE} NOLOGIN;
    EXECUTE format('GRANT {PEOPLE_ROLE} TO %I', current_user);
  ELSIF NOT pg_has_role(current_user, '{PEOPLE_ROLE}', 'MEMBER') THEN
    EXECUTE format('GRANT {PEOPLE_ROLE} TO %I', current_user);
  END IF;
END $$
"""
NO_ROLE = (
    "The database user may not create the role {people}, which pages switch to. As a PostgreSQL administrator, run "
    "CREATE ROLE {people}; GRANT {people} TO {user}; and then migrate again."
)

# They run as the tables' owner, because the tables that they query have policies that call these very functions.
# pg_temp comes last, because PostgreSQL would otherwise look up tables among a session's temporary ones first.
DEFINER = "LANGUAGE sql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp"
FUNCTIONS = f"""
CREATE FUNCTION ingestcloud_user() RETURNS integer {DEFINER} AS
  $$ SELECT nullif(current_setting('ingestcloud.user', true), '')::integer $$;
CREATE FUNCTION ingestcloud_sees_all() RETURNS boolean {DEFINER} AS
  $$ SELECT EXISTS (SELECT FROM auth_user WHERE id = ingestcloud_user() AND is_active AND is_superuser) $$;
CREATE FUNCTION ingestcloud_tenants() RETURNS bigint[] {DEFINER} AS
  $$ SELECT coalesce(array_agg(tenant_id), ARRAY[]::bigint[])
       FROM memberships
       JOIN auth_user ON auth_user.id = user_id
      WHERE user_id = ingestcloud_user() AND is_active $$;
CREATE FUNCTION ingestcloud_colleagues() RETURNS integer[] {DEFINER} AS
  $$ SELECT array_agg(user_id) || ingestcloud_user()
       FROM memberships
      WHERE tenant_id = ANY (ingestcloud_tenants()) $$;
"""
DROP_FUNCTIONS = (
    "DROP FUNCTION ingestcloud_colleagues(), ingestcloud_tenants(), ingestcloud_sees_all(), ingestcloud_user()"
)

OWN_GROUPS = SEES_ALL + " OR {column} IN (SELECT group_id FROM auth_user_groups)"  # that table has a policy of its own


def make_role(apps, schema_editor):
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    try:
        with transaction.atomic(connection.alias), connection.cursor() as cursor:
            cursor.execute(ROLE)
    except ProgrammingError as error:
        raise SystemExit(NO_ROLE.format(people=PEOPLE_ROLE, user=connection.settings_dict["USER"])) from error


def make_functions(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT quote_ident(current_schema())")
        schema_editor.execute(FUNCTIONS.format(schema=cursor.fetchone()[0]), None)


def drop_functions(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(DROP_FUNCTIONS)


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("admin", "0003_logentry_add_action_flag_choices"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        migrations.CreateModel(
            name="Tenant",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "slug",
                    models.SlugField(help_text="Short name used in commands and filters.", max_length=64, unique=True),
                ),
                ("name", models.CharField(max_length=200, validators=[common.text.printable])),
                ("vpn_enabled", models.BooleanField(default=False, verbose_name="VPN module")),
                ("security_enabled", models.BooleanField(default=False, verbose_name="Security module")),
                (
                    "backup_enabled",
                    models.BooleanField(
                        default=False,
                        help_text="Without it, batches with backup events are answered 403.",
                        verbose_name="Backup module",
                    ),
                ),
                (
                    "retention_days",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="Events and resolved alerts are deleted this many days after they arrived. Empty: never.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(36500),
                        ],
                        verbose_name="days to keep events",
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "db_table": "tenants",
                "ordering": ["slug"],
            },
        ),
        migrations.CreateModel(
            name="Membership",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "role",
                    models.CharField(
                        choices=[("viewer", "Viewer"), ("analyst", "Analyst"), ("admin", "Admin of the tenant")],
                        default="analyst",
                        max_length=16,
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="memberships",
                        to="tenants.tenant",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="memberships",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "db_table": "memberships",
                "ordering": ["tenant__slug", "user__username"],
                "constraints": [models.UniqueConstraint(fields=("tenant", "user"), name="memberships_once")],
            },
        ),
        migrations.AddField(
            "tenant",
            "members",
            models.ManyToManyField(
                blank=True, related_name="tenants", through="tenants.Membership", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.RunPython(make_role, migrations.RunPython.noop),
        migrations.RunPython(make_functions, drop_functions),
        IsolateTable("tenants", of_tenant("id")),
        IsolateTable("memberships", of_tenant(), changed=SEES_ALL),
        # The tables of Django's own apps, except sessions and failed logins: only the owner may use those.
        IsolateTable("auth_user", of_colleague("id"), changed=SEES_ALL),
        IsolateTable("auth_user_groups", of_oneself(), changed=SEES_ALL),
        IsolateTable("auth_user_user_permissions", of_oneself(), changed=SEES_ALL),
        IsolateTable("auth_group", OWN_GROUPS.format(column="id"), changed=SEES_ALL),
        IsolateTable("auth_group_permissions", OWN_GROUPS.format(column="group_id"), changed=SEES_ALL),
        IsolateTable("django_admin_log", of_colleague(), changed=own(), changes=["INSERT"]),
        ShareTable("auth_permission"),
        ShareTable("django_content_type"),
    ]
