"""Raw COPY of prepared text, two connections in two processes: the most that the database can accept.

It writes every row that we write for the same batches (the batch, its events and its alerts, but no groups of alerts),
with a commit for each.
Run as `python -m benchmarks.raw_copy DATABASE_URL FILE`: FILE is a pickle of lists of (table and columns, text).
"""

import hashlib
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from benchmarks import events

BATCHES = "ingest_batches (tenant_id, device_id, digest, event_count, alert_count, byte_count, received_at)"
EVENTS = "ingest_events (tenant_id, device_id, batch_id, kind, timestamp, data, received_at)"
ALERTS = (
    "security_alerts (tenant_id, device_id, batch_id, timestamp, received_at, title, severity, source_ip,"
    " destination_ip, description, group_id)"
)


def copy_texts(batch: list[dict], number: int) -> list[tuple[str, bytes]]:
    """The text for each table. It has no characters that COPY requires to be escaped."""
    now = datetime.now(UTC).isoformat()  # into the same partition as new rows
    who = (number % 4 + 1, number % 16 + 1)
    body = events.body(batch)
    alerts = [(event["timestamp"], event["data"]) for event in batch if event["kind"] == "security_alert"]
    batch_row = (*who, rf"\\x{hashlib.sha256(body).hexdigest()}", len(batch), len(alerts), len(body), now)
    event_rows = [
        (*who, number, event["kind"], event["timestamp"], json.dumps(event["data"], separators=(",", ":")), now)
        for event in batch
    ]
    known = ("title", "severity", "source_ip", "destination_ip", "description")
    alert_rows = [(*who, number, moment, now, *(data[name] for name in known), 0) for moment, data in alerts]
    return [(BATCHES, lines([batch_row])), (EVENTS, lines(event_rows)), (ALERTS, lines(alert_rows))]


def lines(rows: Iterable[tuple]) -> bytes:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows).encode()


def events_per_second(database_url: str, batches: list[list[dict]]) -> float:
    texts = [copy_texts(batch, number) for number, batch in enumerate(batches)]
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for half in (0, 1):
            file = Path(folder) / str(half)
            file.write_bytes(pickle.dumps(texts[half::2]))
            command = [sys.executable, "-m", "benchmarks.raw_copy", database_url, str(file)]
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        for process in processes:
            process.stdout.readline()  # it is connected
        began = time.perf_counter()
        for process in processes:
            process.stdin.close()  # go
        for process in processes:
            assert process.wait() == 0
        return sum(map(len, batches)) / (time.perf_counter() - began)


if __name__ == "__main__":
    prepared = pickle.loads(Path(sys.argv[2]).read_bytes())
    with psycopg.connect(sys.argv[1]) as connection, connection.cursor() as cursor:
        print("ready", flush=True)
        sys.stdin.read()
        for texts in prepared:
            for table, text in texts:
                with cursor.copy(f"COPY {table} FROM STDIN") as copy:
                    copy.write(text)
            connection.commit()
