"""What people may see, decided by the database. `devices/isolation.py` says when it does."""

from django.db import ProgrammingError, migrations, transaction

PEOPLE = "ingestcloud_people"

# The one who makes a role may not change to it before the grant (PostgreSQL 16 and later). A role is of the whole
# server: another database of ours may have made it.
ROLE = f"""
DO $$ BEGIN
  IF to_regrole('{PEOPLE}') IS NULL THEN
    CREATE ROLE {PEOPLE} NOLOGIN;
    EXECUTE format('GRANT {PEOPLE} TO %I', current_user);
  ELSIF NOT pg_has_role(current_user, '{PEOPLE}', 'MEMBER') THEN
    EXECUTE format('GRANT {PEOPLE} TO %I', current_user);
  END IF;
END $$
"""
HOW = (
    "The database's user may not make the role {people} that pages change to. As an administrator of PostgreSQL run "
    "CREATE ROLE {people}; GRANT {people} TO {user}; and then migrate again."
)

FUNCTIONS = """
CREATE FUNCTION ingestcloud_user() RETURNS integer LANGUAGE sql STABLE AS
  $$ SELECT nullif(current_setting('ingestcloud.user', true), '')::integer $$;
CREATE FUNCTION ingestcloud_sees_all() RETURNS boolean LANGUAGE sql STABLE AS
  $$ SELECT EXISTS (SELECT FROM auth_user WHERE id = ingestcloud_user() AND is_active AND is_superuser) $$;
CREATE FUNCTION ingestcloud_tenants() RETURNS bigint[] LANGUAGE sql STABLE AS
  $$ SELECT coalesce(array_agg(tenant_id), '{}')
       FROM devices_tenant_members
       JOIN auth_user ON auth_user.id = user_id
      WHERE user_id = ingestcloud_user() AND is_active $$;
"""
DROP_FUNCTIONS = "DROP FUNCTION ingestcloud_tenants(), ingestcloud_sees_all(), ingestcloud_user()"

# Each function is asked once a query, not once a row.
OF_TENANT = "(SELECT ingestcloud_sees_all()) OR {column} = ANY ((SELECT ingestcloud_tenants())::bigint[])"
POLICIES = {
    "devices_tenant": OF_TENANT.format(column="id"),
    "devices_devicekey": "device_id IN (SELECT id FROM devices_device)",  # which has a policy
} | dict.fromkeys(
    (
        "devices_device", "devices_provisioningkey", "ingest_batches", "ingest_events", "rejected_batches",
        "security_alerts",
    ),
    OF_TENANT.format(column="tenant_id"),
)  # fmt: skip


def isolate(apps, schema_editor):
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        try:
            with transaction.atomic(connection.alias):
                cursor.execute(ROLE)
        except ProgrammingError as error:
            raise SystemExit(HOW.format(people=PEOPLE, user=connection.settings_dict["USER"])) from error
        cursor.execute(FUNCTIONS)
        for table, rows in POLICIES.items():
            cursor.execute(f"CREATE POLICY people ON {table} TO {PEOPLE} USING ({rows})")
            cursor.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")


def unite(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    with schema_editor.connection.cursor() as cursor:
        for table in POLICIES:
            cursor.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
            cursor.execute(f"DROP POLICY people ON {table}")
        cursor.execute(DROP_FUNCTIONS)


class Migration(migrations.Migration):
    initial = True
    dependencies = [
        ("devices", "0004_provisioning"),
        ("alerts", "0001_initial"),
        ("ingest", "0004_refused_key_counts"),
    ]
    operations = [migrations.RunPython(isolate, unite)]
