"""Raw `executemany` into SQLite: rows prepared, a commit for each batch, the same tables and durability.

It writes every row that we write for the same batches: the batch, its events and its alerts, but no groups of
alerts.
"""

import hashlib
import json
import sqlite3
import time
from pathlib import Path

from benchmarks import events

NOW = "2026-06-06 10:00:00.000000"
BATCHES = ("ingest_batches", "tenant_id device_id digest event_count alert_count byte_count received_at")
EVENTS = ("ingest_events", "tenant_id device_id batch_id kind timestamp data received_at")
ALERTS = (
    "security_alerts",
    "tenant_id device_id batch_id timestamp received_at title severity source_ip destination_ip description group_id",
)


def events_per_second(file: Path, batches: list[list[dict]]) -> float:
    """Writes into the tables of `file`, which must exist and be empty."""
    prepared = [rows_of(batch, number) for number, batch in enumerate(batches)]
    connection = sqlite3.connect(file, isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
    began = time.perf_counter()
    for tables in prepared:
        connection.execute("BEGIN IMMEDIATE")
        for statement, rows in tables:
            connection.executemany(statement, rows)
        connection.execute("COMMIT")
    seconds = time.perf_counter() - began
    connection.close()
    return sum(map(len, batches)) / seconds


def rows_of(batch: list[dict], number: int) -> list[tuple[str, list[tuple]]]:
    """The statement for each table, and its rows."""
    who = (number % 4 + 1, number % 16 + 1)
    body = events.body(batch)
    alerts = [(event["timestamp"], event["data"]) for event in batch if event["kind"] == "security_alert"]
    batch_row = (*who, hashlib.sha256(body).digest(), len(batch), len(alerts), len(body), NOW)
    event_rows = [
        (*who, number, event["kind"], event["timestamp"], json.dumps(event["data"], separators=(",", ":")), NOW)
        for event in batch
    ]
    known = ("title", "severity", "source_ip", "destination_ip", "description")
    alert_rows = [(*who, number, moment, NOW, *(data[name] for name in known), 0) for moment, data in alerts]
    return [(insert(*BATCHES), [batch_row]), (insert(*EVENTS), event_rows), (insert(*ALERTS), alert_rows)]


def insert(table: str, columns: str) -> str:
    names = columns.split()
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
