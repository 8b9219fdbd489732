"""Raw COPY of prepared text, two connections in two processes: what the database can take.

Run as `python -m benchmarks.raw_copy DATABASE_URL FILE`: FILE is a pickle of COPY texts, a commit each.
"""

import json
import pickle
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg

COLUMNS = "(tenant_id, device_id, batch_id, kind, timestamp, data, received_at)"


def copy_text(batch: list[dict[str, object]], number: int) -> bytes:
    now = datetime.now(UTC).isoformat()  # into the partition that new rows go to
    return "".join(
        f"{number % 4 + 1}\t{number % 16 + 1}\t{number}\t{event['kind']}\t{event['timestamp']}\t"
        f"{json.dumps(event['data'], separators=(',', ':'))}\t{now}\n"
        for event in batch
    ).encode()


def rows_per_second(database_url: str, batches: list[list[dict[str, object]]]) -> float:
    texts = [copy_text(batch, number) for number, batch in enumerate(batches)]
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
    texts = pickle.loads(Path(sys.argv[2]).read_bytes())
    with psycopg.connect(sys.argv[1]) as connection, connection.cursor() as cursor:
        print("ready", flush=True)
        sys.stdin.read()
        for text in texts:
            with cursor.copy(f"COPY ingest_events {COLUMNS} FROM STDIN") as copy:
                copy.write(text)
            connection.commit()
