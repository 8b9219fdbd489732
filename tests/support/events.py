"""Events to send."""

import itertools

# The examples of the source document, verbatim.
EXAMPLES = {
    "telemetry": """{ "kind": "telemetry", "timestamp": "2026-06-06T10:00:00Z", "data": { "cpu_percent": 12.5,
        "memory_percent": 45.2, "interface": "eth0", "rx_bytes": 1048576, "tx_bytes": 524288 }}""",
    "log": """{ "kind": "log", "timestamp": "2026-06-06T10:00:01Z", "data": { "level": "warn",
        "message": "High memory usage detected", "source": "edge-agent" }}""",
    "security_alert": """{ "kind": "security_alert", "timestamp": "2026-06-06T10:00:02Z", "data": {
        "title": "Port scan detected", "severity": "high", "source_ip": "192.168.1.100",
        "destination_ip": "10.0.0.1", "description": "SYN scan from 192.168.1.100 on 256 ports" }}""",
    "discovery": """{ "kind": "discovery", "timestamp": "2026-06-06T10:00:03Z", "data": { "ip": "10.0.0.45",
        "mac": "AA:BB:CC:DD:EE:FF", "hostname": "plc-001", "open_ports": [102, 502, 44818], "vendor": "Siemens" }}""",
    "backup_event": """{ "kind": "backup_event", "timestamp": "2026-06-06T10:00:04Z", "data": {
        "job_id": "550e8400-e29b-41d4-a716-446655440000", "status": "completed", "asset_id": "device-plc-001",
        "size_bytes": 204800, "checksum_sha256": "abc123..." }}""",
}

numbers = itertools.count(1)


def event(kind: object, timestamp: str = "2026-06-06T10:00:00Z", **data: object) -> dict[str, object]:
    return {"kind": kind, "timestamp": timestamp, "data": data}


def telemetry(timestamp: str = "2026-06-06T10:00:00Z", **data: object) -> dict[str, object]:
    return event("telemetry", timestamp, **{"cpu_percent": 1.5, "memory_percent": 2.5} | data)


def log(timestamp: str = "2026-06-06T10:00:00Z", **data: object) -> dict[str, object]:
    """A log event unlike all others, so that no batch is a repeat."""
    return event("log", timestamp, **{"level": "info", "message": f"line {next(numbers)}"} | data)


def alert(title: str | None = None, timestamp: str = "2026-06-06T10:00:00Z", **data: object) -> dict[str, object]:
    """A security alert unlike all others."""
    title = f"alert {next(numbers)}" if title is None else title
    return event("security_alert", timestamp, **{"title": title, "severity": "high"} | data)
