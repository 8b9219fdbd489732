"""Bodies to post: mixed kinds, about 180 bytes an event, two alerts in a hundred, every body distinct."""

import json
import random
from datetime import UTC, datetime, timedelta

START = datetime(2026, 6, 6, 10, tzinfo=UTC)


def event(number: int, dice: random.Random) -> dict[str, object]:
    moment = (START + timedelta(milliseconds=number)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    kind, data = dice.choices(
        [
            ("telemetry", {
                "cpu_percent": round(dice.uniform(0, 100), 1), "memory_percent": round(dice.uniform(0, 100), 1),
                "interface": "eth0", "rx_bytes": dice.randrange(10**9), "tx_bytes": dice.randrange(10**9),
            }),
            ("log", {"level": "info", "message": f"pump {number} pressure within limits", "source": "edge-agent"}),
            ("discovery", {
                "ip": f"10.0.{dice.randrange(256)}.{dice.randrange(256)}", "mac": "AA:BB:CC:DD:EE:FF",
                "hostname": f"plc-{number % 1000}", "open_ports": [102, 502, 44818], "vendor": "Siemens",
            }),
            ("backup_event", {
                "job_id": f"550e8400-e29b-41d4-a716-{number:012d}", "status": "completed",
                "asset_id": "device-plc-001", "size_bytes": 204800, "checksum_sha256": "abc123",
            }),
            ("security_alert", {
                "title": "Port scan detected", "severity": "high", "source_ip": "192.168.1.100",
                "destination_ip": "10.0.0.1", "description": "SYN scan from 192.168.1.100 on 256 ports",
            }),
        ],
        weights=[50, 30, 13, 5, 2],
    )[0]  # fmt: skip
    return {"kind": kind, "timestamp": moment, "data": data}


def batches(count: int, size: int, seed: int) -> list[list[dict[str, object]]]:
    dice = random.Random(seed)
    return [[event(seed * 10**7 + n * size + k, dice) for k in range(size)] for n in range(count)]


def floods(count: int, size: int, seed: int) -> list[list[dict[str, object]]]:
    """Batches of repeats of one alert."""
    ends = {"source_ip": "192.168.1.100", "destination_ip": "10.0.0.1"}
    alert = {"title": "Port scan detected", "severity": "high", **ends}
    moments = [START + timedelta(milliseconds=seed * 10**7 + number) for number in range(count * size)]
    flood = [
        {
            "kind": "security_alert",
            "timestamp": moment.isoformat(),
            "data": alert | {"description": f"attempt {number}"},
        }
        for number, moment in enumerate(moments)
    ]
    return [flood[n * size : (n + 1) * size] for n in range(count)]


def body(batch: list[dict[str, object]]) -> bytes:
    return json.dumps(batch, separators=(",", ":")).encode()
