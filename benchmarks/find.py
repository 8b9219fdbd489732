"""Searching a million groups over the API."""

import statistics
import time
import urllib.request

from benchmarks import environment
from benchmarks.environment import say

GROUPS = 1_000_000
RUNS = 20
# Ten in eleven are closed. The titles have 20,000 different words, the addresses are from 10.0.0.0/8.
FILL = """
INSERT INTO alert_groups (tenant_id, fingerprint, title, source_ip, destination_ip, severity, status, count,
                          first_seen_at, last_seen_at, last_alert_id, revision)
SELECT tenants.ids[1 + n %% array_length(tenants.ids, 1)], decode(md5(n::text), 'hex'),
       format('Login of user w%%s refused by host h%%s', n::bigint * 7919 %% 20000, n %% 500),
       '10.0.0.0'::inet + n::bigint * 7907 %% 16000000, '192.168.0.0'::inet + n %% 60000,
       (ARRAY['low', 'info', 'medium', 'high', 'critical'])[1 + n %% 5],
       CASE WHEN n %% 11 = 0 THEN 'new' ELSE 'closed' END,
       1, now() - n * interval '1 s', now() - n * interval '1 s', n, nextval('alert_groups_revision_seq')
  FROM generate_series(1, %s) AS n,
       (SELECT array_agg(id ORDER BY slug) AS ids FROM tenants WHERE slug = ANY (%s)) AS tenants
"""
QUERIES = {
    "latest": "",
    "new and critical": "severity=critical&status=new",
    "assigned to nobody that exists": "assignee=999999",
    "word": "q=w12344&status=any",
    "two words": "q=w776+refused&status=any",
    "rare text": "q=h496+w10324&status=any",
    "text of others": "q=h499&status=any",
    "no such text": "q=nowhere&status=any",
    "common text": "q=refused&status=any",
    "address": "address=10.238.118.224&status=any",
    "network": "source=10.1.2.0/24&status=any",
    "large network": "destination=192.168.0.0/17&status=any",
    "old and closed": "status=closed&disposition=benign",
}


def find_ms() -> list[float]:
    """The median of each query in milliseconds, as an analyst of one of four tenants."""
    from django.db import connection

    from alerts.searching import tidy_entries

    environment.make_keys()
    environment.truncate()
    with connection.cursor() as cursor:
        cursor.execute(FILL, [GROUPS, list(environment.TENANTS)])
        tidy_entries()
        cursor.execute("VACUUM ANALYZE alert_groups, alert_group_search")
    cookie = environment.log_in(environment.TENANTS[0])
    medians = []
    with environment.serving() as server:
        for name, query in QUERIES.items():
            times = [ask(server.port, cookie, query) for _ in range(RUNS)]
            medians.append(statistics.median(times))
            say(f"{name}: {medians[-1]:.0f} ms")
    environment.truncate()
    return medians


def ask(port: int, cookie: str, query: str) -> float:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/groups?{query}", headers={"Cookie": cookie})
    begin = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        answer.read()
    return (time.perf_counter() - begin) * 1000
