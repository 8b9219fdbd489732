"""Raw `executemany` into SQLite: rows prepared, a commit for 500, the same table, indexes and durability."""

import json
import sqlite3
import time
from pathlib import Path

TABLE = """
CREATE TABLE ingest_events (
  id integer NOT NULL PRIMARY KEY AUTOINCREMENT, kind varchar(16) NOT NULL, timestamp datetime NOT NULL,
  data text NOT NULL CHECK (JSON_VALID(data) OR data IS NULL), received_at datetime NOT NULL, batch_id bigint NOT NULL,
  device_id bigint NOT NULL, tenant_id bigint NOT NULL);
CREATE INDEX ingest_events_tenant_kind_time ON ingest_events (tenant_id, kind, timestamp);
"""
INSERT = """
INSERT INTO ingest_events (tenant_id, device_id, batch_id, kind, timestamp, data, received_at)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""


def rows_per_second(file: Path, batches: list[list[dict]]) -> float:
    prepared = [[_row(number, event) for event in batch] for number, batch in enumerate(batches)]
    connection = sqlite3.connect(file, isolation_level=None)
    connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {TABLE}")
    began = time.perf_counter()
    for rows in prepared:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, rows)
        connection.execute("COMMIT")
    seconds = time.perf_counter() - began
    connection.close()
    return sum(map(len, prepared)) / seconds


def _row(number: int, event: dict) -> tuple[object, ...]:
    data = json.dumps(event["data"], separators=(",", ":"))
    received_at = "2026-06-06 10:00:00.000000"
    return number % 4, number % 16, number, event["kind"], event["timestamp"], data, received_at
