"""What row-level security needs to enforce the roles of members."""

from django.db import migrations

from tenants.tables import SEES_ALL, IsolateAnew, IsolateTable, of_tenant, of_tenant_as

DEFINER = "LANGUAGE sql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp"  # as in the first migration
FUNCTIONS = f"""
CREATE FUNCTION ingestcloud_tenants_as(roles text[]) RETURNS bigint[] {DEFINER} AS
  $$ SELECT coalesce(array_agg(tenant_id), ARRAY[]::bigint[])
       FROM memberships
       JOIN auth_user ON auth_user.id = user_id
      WHERE user_id = ingestcloud_user() AND is_active AND role = ANY (roles) $$;
CREATE FUNCTION ingestcloud_superusers() RETURNS integer[] {DEFINER} AS
  $$ SELECT coalesce(array_agg(id), ARRAY[]::integer[]) FROM auth_user WHERE is_superuser $$;
"""
DROP_FUNCTIONS = "DROP FUNCTION ingestcloud_superusers(), ingestcloud_tenants_as(text[])"
NOT_OF_SUPERUSERS = "user_id <> ALL ((SELECT ingestcloud_superusers())::integer[])"


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
    dependencies = [("tenants", "0002_days_to_keep_closed_groups")]

    operations = [
        migrations.RunPython(make_functions, drop_functions),
        IsolateAnew(
            "memberships",
            before=IsolateTable("memberships", of_tenant(), changed=SEES_ALL),
            changed=f"{SEES_ALL} OR (({of_tenant_as('admin')}) AND {NOT_OF_SUPERUSERS})",
        ),
    ]
