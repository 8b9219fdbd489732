"""The same durable work with FastAPI, pydantic and asyncpg, to compare with at one event a request."""

import hashlib
import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Literal

import asyncpg
from fastapi import FastAPI, Header, HTTPException, Request, Response
from pydantic import BaseModel, Field, TypeAdapter

Text32, Text64, Text255 = (Annotated[str, Field(max_length=length)] for length in (32, 64, 255))
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Telemetry(BaseModel, extra="allow"):
    cpu_percent: float
    memory_percent: float
    interface: str | None = None
    rx_bytes: Int64 | None = None
    tx_bytes: Int64 | None = None


class Log(BaseModel, extra="allow"):
    level: Text32
    message: str
    source: str | None = None


class Alert(BaseModel, extra="allow"):
    title: Annotated[str, Field(min_length=1, max_length=1000)]
    severity: Literal["info", "low", "medium", "high", "critical"]
    source_ip: IPv4Address | IPv6Address | None = None
    destination_ip: IPv4Address | IPv6Address | None = None
    description: str | None = None


class Discovery(BaseModel, extra="allow"):
    ip: IPv4Address | IPv6Address
    mac: Text64 | None = None
    hostname: Text255 | None = None
    open_ports: list[Annotated[int, Field(ge=0, le=65535)]] | None = None
    vendor: Text255 | None = None


class Backup(BaseModel, extra="allow"):
    job_id: Annotated[str, Field(min_length=1, max_length=255)]
    status: Annotated[str, Field(min_length=1, max_length=64)]
    asset_id: Text255 | None = None
    size_bytes: Int64 | None = None
    checksum_sha256: Text255 | None = None


def kind(name: str, data: type[BaseModel]) -> type[BaseModel]:
    fields: dict[str, Any] = {"kind": Literal[name], "timestamp": datetime, "data": data}
    return type(name, (BaseModel,), {"__annotations__": fields})


Event = (
    kind("telemetry", Telemetry)
    | kind("log", Log)
    | kind("security_alert", Alert)
    | kind("discovery", Discovery)
    | kind("backup_event", Backup)
)
batches = TypeAdapter(list[Annotated[Event, Field(discriminator="kind")]])


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=10, max_size=10)
    yield


app = FastAPI(lifespan=lifespan)

KEY = """SELECT k.id, d.id AS device_id, d.tenant_id
 FROM device_keys k JOIN devices d ON d.id = k.device_id
 WHERE digest = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"""
BATCH = """INSERT INTO ingest_batches (tenant_id, device_id, digest, event_count, alert_count, byte_count, received_at)
 VALUES ($1, $2, $3, $4, $5, $6, $7)
 ON CONFLICT (device_id, digest) WHERE idempotency_key IS NULL DO NOTHING RETURNING id"""
EVENT = """INSERT INTO ingest_events (tenant_id, device_id, batch_id, kind, timestamp, data, received_at)
 VALUES ($1, $2, $3, $4, $5, $6, $7)"""
ALERT = """INSERT INTO security_alerts (tenant_id, device_id, batch_id, timestamp, received_at, title, severity,
 source_ip, destination_ip, description, group_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0)"""


@app.post("/v1/ingest", status_code=204)
async def ingest(request: Request, x_device_key: str = Header()) -> Response:
    body = await request.body()
    now = datetime.now(UTC)
    async with request.app.state.pool.acquire() as connection:
        key = await connection.fetchrow(KEY, hashlib.sha256(x_device_key.encode()).hexdigest())
        if key is None:
            raise HTTPException(401)
        events = batches.validate_json(body)
        who = (key["tenant_id"], key["device_id"])
        alerts = [event for event in events if event.kind == "security_alert"]
        async with connection.transaction():
            digest = hashlib.sha256(body).digest()
            batch_id = await connection.fetchval(BATCH, *who, digest, len(events), len(alerts), len(body), now)
            if batch_id is not None:
                rows = [
                    (*who, batch_id, e.kind, e.timestamp, e.data.model_dump_json(exclude_unset=True), now)
                    for e in events
                ]
                await connection.executemany(EVENT, rows)
                for e in alerts:
                    known = e.data
                    addresses = known.source_ip, known.destination_ip
                    row = (e.timestamp, now, known.title, known.severity, *addresses, known.description or "")
                    await connection.execute(ALERT, *who, batch_id, *row)
    return Response(status_code=204)
