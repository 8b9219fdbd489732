"""Where the agent's events come from: this machine, and samples on request.

Except for the samples, everything is measured or read; nothing is invented. All functions return lists of events as
docs/devices.md describes them: `{"kind", "timestamp", "data"}`, timestamps in UTC.
"""

import hashlib
import ipaddress
import itertools
import json
import os
import random
import re
import shutil
import socket
import subprocess
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import psutil

Event = dict[str, Any]

LOG_FILES = [Path("/var/log") / name for name in ("syslog", "messages", "system.log", "auth.log", "dpkg.log")]
LINES_AT_START = 10  # of each log, when the agent starts
MAX_BYTES_AT_ONCE = 256 * 1024  # of a log file
LEVELS = dict(zip("01234567", ["emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"], strict=True))
LEADING_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:?\d\d)?")


def make_event(kind: str, data: dict[str, Any], at: datetime | None = None) -> Event:
    """An event that happened `at` that time, or now. The timestamp has a fixed format, so its text sorts by time."""
    at = (at or datetime.now(UTC)).astimezone(UTC)
    return {"kind": kind, "timestamp": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "data": data}


class Telemetry:
    """This machine's CPU and memory: one event for every interface that is up, with its counters."""

    def __init__(self) -> None:
        psutil.cpu_percent()  # the first call has nothing to compare with and always says 0

    def read(self) -> list[Event]:
        usage = {"cpu_percent": psutil.cpu_percent(), "memory_percent": psutil.virtual_memory().percent}
        up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
        counters = {name: io for name, io in psutil.net_io_counters(pernic=True).items() if name in up}
        return [
            make_event("telemetry", {**usage, "interface": name, "rx_bytes": io.bytes_recv, "tx_bytes": io.bytes_sent})
            for name, io in counters.items()
        ] or [make_event("telemetry", usage)]


class LogSource(Protocol):
    """Log lines since the last `read`; the first time, the last few."""

    def read(self) -> list[Event]: ...


class Journal:
    """Entries of the systemd journal, followed by its cursor."""

    def __init__(self) -> None:
        self._position = f"--lines={LINES_AT_START}"

    def read(self) -> list[Event]:
        entries = [json.loads(line) for line in journalctl("--output=json", self._position).splitlines()]
        if entries:
            self._position = f"--after-cursor={entries[-1]['__CURSOR']}"
        # A message that is not text or is too long arrives as a list or null: left out.
        return [self._event(entry) for entry in entries if isinstance(entry.get("MESSAGE"), str)]

    @staticmethod
    def _event(entry: dict[str, Any]) -> Event:
        at = datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1_000_000, UTC)
        # Any program may write these fields, even twice, which makes them lists.
        level = LEVELS.get(str(entry.get("PRIORITY")), "unknown")
        source = str(entry.get("SYSLOG_IDENTIFIER") or entry.get("_COMM") or "journal")
        message = storable(entry["MESSAGE"])
        return make_event("log", {"level": level, "message": message, "source": storable(source)}, at)


class LogFile:
    """Lines of a log file, followed from its end, even after rotation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode: int | None = None
        self._offset = 0

    def read(self) -> list[Event]:
        try:
            with self.path.open("rb") as file:
                lines = self._new_lines(file)
        except OSError:
            return []  # between two rotations there may be no file; the next read finds it
        return [self._event(line) for line in lines if line.strip()]

    def _new_lines(self, file: Any) -> list[str]:
        stats = os.fstat(file.fileno())
        at_start = self._inode is None
        if at_start:
            self._offset = max(0, stats.st_size - MAX_BYTES_AT_ONCE)
        elif stats.st_ino != self._inode or stats.st_size < self._offset:
            self._offset = 0
        self._inode = stats.st_ino
        file.seek(self._offset)
        chunk = file.read(MAX_BYTES_AT_ONCE)
        # A line that is still being written waits for the next read, unless it fills a whole read.
        whole = chunk[: chunk.rfind(b"\n") + 1] or (chunk if len(chunk) == MAX_BYTES_AT_ONCE else b"")
        self._offset += len(whole)
        lines = whole.decode(errors="replace").split("\n")[:-1]
        return lines[-LINES_AT_START:] if at_start else lines

    def _event(self, line: str) -> Event:
        """The line unchanged. These formats have no level, and a guess would be invented data."""
        data = {"level": "unknown", "message": storable(line), "source": self.path.name}
        return make_event("log", data, time_of(line))


def time_of(line: str) -> datetime | None:
    """The time at the start of a log line (local time if it has no offset), None if it can't be read."""
    match = LEADING_TIME.match(line)
    try:
        return datetime.fromisoformat(match.group()).astimezone() if match else None
    except (ValueError, OverflowError):
        return None


def storable(text: str) -> str:
    """`text` without what a database can't hold: NUL and lone surrogates."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def journalctl(*arguments: str) -> str:
    """The output of `journalctl`, empty if it is missing or fails."""
    if (program := shutil.which("journalctl")) is None:
        return ""
    command = [program, "--quiet", "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False).stdout  # noqa: S603


def log_sources(paths: Sequence[Path] = LOG_FILES) -> list[LogSource]:
    """The journal if this user may read it, otherwise those log files among `paths` that they may read."""
    if journalctl("--lines=1", "--output=cat"):
        return [Journal()]
    return [LogFile(path) for path in paths if path.is_file() and os.access(path, os.R_OK)]


def discover_self() -> list[Event]:
    """This machine as the network sees it: one event for every address others can reach."""
    events = []
    for addresses in psutil.net_if_addrs().values():
        macs = [a.address.upper().replace("-", ":") for a in addresses if a.family == psutil.AF_LINK]
        for address in addresses:
            if address.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            ip = ipaddress.ip_address(address.address.partition("%")[0])
            if ip.is_loopback or ip.is_link_local:
                continue
            data = {"ip": str(ip), "mac": macs[0] if macs else None, "hostname": socket.gethostname()}
            events.append(make_event("discovery", {**data, "open_ports": listening_ports(str(ip))}))
    return events


def listening_ports(ip: str) -> list[int] | None:
    """TCP ports that listen on `ip`; None if the system doesn't let this user ask."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.AccessDenied, OSError):
        return None
    here = {ip, "0.0.0.0", "::"}  # noqa: S104 - compared with, not bound to
    return sorted(
        {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.ip in here}
    )


# Title, severity, source and destination (None: the sensor names none), description.
SAMPLE_ALERTS: list[tuple[str, str, str | None, str | None, str]] = [
    ("Port scan detected", "high", "192.0.2.{n}", "10.0.0.1", "SYN scan from {source} on 256 ports within 4 s"),
    ("Ransomware note written on file server", "critical", "10.0.4.{n}", "10.0.4.10",
     "{source} renamed 1,204 files on share 'projects' to .locked and left README_DECRYPT.txt"),
    ("Repeated failed SSH logins", "medium", "198.51.100.{n}", "10.0.0.12",
     "48 failed logins for root and admin from {source} in 10 minutes"),
    ("New device on the control network", "low", "10.0.2.{n}", None, "{source} appeared with an unknown MAC vendor"),
    ("PLC program changed outside the maintenance window", "critical", "10.0.2.{n}", "10.0.2.40",
     "S7 block download (OB1, DB12) from {source}; no change was announced"),
    ("TLS certificate expires soon", "info", None, "10.0.0.8", "Certificate of gateway.plant.example ends in 14 days"),
    ("DNS queries to a known command-and-control domain", "high", "10.0.3.{n}", "203.0.113.53",
     "{source} asked 31 times for names under update-check.example"),
    ("Modbus write from an unexpected host", "high", "10.0.3.{n}", "10.0.2.17",
     "Function 16 (write multiple registers), 40 registers, from {source}"),
    ("Firewall rule hit: SMB to the internet", "medium", "10.0.5.{n}", "203.0.113.77", "Blocked: {source} to port 445"),
    ("USB storage connected", "low", None, None, "Mass storage attached to operator station HMI-02"),
    ("Administrator signed in", "info", "10.0.0.{n}", "10.0.0.1", "Interactive session of 'ops' from {source}"),
    ("Large upload at night", "medium", "10.0.6.{n}", "198.51.100.20", "{source} sent 3.2 GiB between 02:10 and 02:40"),
]  # fmt: skip


def sample_alerts(count: int) -> list[Event]:
    """`count` made-up security alerts, across all severities; addresses are private or for documentation."""
    events = []
    for title, severity, source, destination, description in itertools.islice(itertools.cycle(SAMPLE_ALERTS), count):
        source = source and source.format(n=random.randint(2, 254))  # noqa: S311 - a sample, no secret
        data = {"title": title, "severity": severity, "source_ip": source, "destination_ip": destination}
        events.append(make_event("security_alert", {**data, "description": description.format(source=source)}))
    return events


def sample_backups(count: int) -> list[Event]:
    """`count` made-up backup jobs, each started a minute ago or less and completed now."""
    events = []
    for _ in range(count):
        job = {"job_id": str(uuid.uuid4()), "asset_id": socket.gethostname()}
        ended = datetime.now(UTC)
        started = ended - timedelta(seconds=random.randint(5, 60))  # noqa: S311 - a sample, no secret
        content = random.randbytes(random.randint(10_000, 900_000))  # noqa: S311 - a sample, no secret
        result = {"size_bytes": len(content), "checksum_sha256": hashlib.sha256(content).hexdigest()}
        events.append(make_event("backup_event", {**job, "status": "started"}, started))
        events.append(make_event("backup_event", {**job, "status": "completed", **result}, ended))
    return events
