"""The list of the audit with a million entries."""

import statistics
import time
import urllib.request
from urllib.parse import urlencode

from benchmarks import environment
from benchmarks.environment import say

ENTRIES = 1_000_000
RUNS = 10
# One in five belongs to the site, the others to four tenants; 200 users, 50,000 devices.
FILL = """
INSERT INTO audit_entries (at, actor_kind, actor_id, actor_name, source, request_id, tenant_id, verb,
                           object_type, object_id, object_name, owner_type, before, after)
SELECT now() - (%s - n) * interval '30 s', 'user', n %% 200, 'user-' || n %% 200, '10.0.0.0'::inet + n %% 5000, '',
       CASE WHEN n %% 5 > 0 THEN tenants.ids[1 + n / 5 %% array_length(tenants.ids, 1)] END,
       (ARRAY['signed_in', 'device_changed', 'device_key_issued', 'device_registered', 'device_key_revoked'])
         [1 + n %% 5],
       'devices.device', n %% 50000, 'device-' || n %% 50000, '', '{}', '{"location": "hall"}'
  FROM generate_series(1, %s) AS n,
       (SELECT array_agg(id ORDER BY slug) AS ids FROM tenants WHERE slug = ANY (%s)) AS tenants
"""
QUERIES: dict[str, dict[str, str]] = {
    "newest": {},
    "a verb": {"verb__exact": "device_key_issued"},
    "a verb that nobody did": {"verb__exact": "user_deleted"},
    "a name": {"actor_name": "user-7"},
    "a day": {"at_from_0": "2026-06-01", "at_to_0": "2026-06-01"},
    "an object": {"object": "devices.device-776"},
    "text": {"q": "device-776"},
    "no such text": {"q": "nowhere"},
}


def audit_ms() -> list[float]:
    """The median of each query in milliseconds, as a superuser and as staff of one of four tenants."""
    from django.db import connection

    environment.make_keys()
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(max(id), 0) FROM audit_entries")
        (before,) = cursor.fetchone()
        cursor.execute(FILL, [ENTRIES, ENTRIES, list(environment.TENANTS)])
        cursor.execute("VACUUM ANALYZE audit_entries")
    medians = []
    with environment.serving() as server:
        for who in ("superuser", "staff"):
            cookie = environment.log_in(environment.TENANTS[0])
            may_see_the_audit(who)
            for name, query in QUERIES.items():
                times = [ask(server.port, cookie, query) for _ in range(RUNS)]
                medians.append(statistics.median(times))
                say(f"{who}, {name}: {medians[-1]:.0f} ms")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_entries DISABLE TRIGGER USER")
        cursor.execute("DELETE FROM audit_entries WHERE id > %s", [before])
        cursor.execute("ALTER TABLE audit_entries ENABLE TRIGGER USER")
    return medians


def may_see_the_audit(who: str) -> None:
    """Let the newest user see the audit."""
    from django.contrib.auth.models import Permission, User

    user = User.objects.latest("pk")
    user.is_staff, user.is_superuser = True, who == "superuser"
    user.save()
    user.user_permissions.add(Permission.objects.get(codename="view_auditentry"))


def ask(port: int, cookie: str, query: dict[str, str]) -> float:
    address = f"http://127.0.0.1:{port}/admin/tenants/auditentry/?{urlencode(query)}"
    begin = time.perf_counter()
    with urllib.request.urlopen(urllib.request.Request(address, headers={"Cookie": cookie})) as answer:
        answer.read()
    return (time.perf_counter() - begin) * 1000
