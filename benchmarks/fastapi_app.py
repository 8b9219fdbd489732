"""The same durable work for one event a request, with FastAPI, pydantic and asyncpg: what we compare with."""

import hashlib
import json
import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import asyncpg
from fastapi import FastAPI, Header, HTTPException, Request, Response
from pydantic import BaseModel, Field, TypeAdapter


class Telemetry(BaseModel, extra="allow"):
    cpu_percent: float
    memory_percent: float
    interface: str | None = None
    rx_bytes: int | None = None
    tx_bytes: int | None = None


class Log(BaseModel, extra="allow"):
    level: str
    message: str


class Alert(BaseModel, extra="allow"):
    title: str
    severity: Literal["info", "low", "medium", "high", "critical"]
    source_ip: str | None = None
    destination_ip: str | None = None
    description: str | None = None


class Discovery(BaseModel, extra="allow"):
    ip: str


class Backup(BaseModel, extra="allow"):
    job_id: str
    status: str


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
 FROM devices_devicekey k JOIN devices_device d ON d.id = k.device_id
 WHERE digest = $1 AND revoked_at IS NULL"""
BATCH = """INSERT INTO ingest_batches (tenant_id, device_id, digest, event_count, alert_count, byte_count, received_at)
 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (device_id, digest) DO NOTHING RETURNING id"""
EVENT = """INSERT INTO ingest_events (tenant_id, device_id, batch_id, kind, timestamp, data, received_at)
 VALUES ($1, $2, $3, $4, $5, $6, $7)"""
ALERT = """INSERT INTO security_alerts (tenant_id, device_id, batch_id, timestamp, received_at, title, severity,
 description, status) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'open')"""


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
                rows = [(*who, batch_id, e.kind, e.timestamp, json.dumps(e.data.model_dump()), now) for e in events]
                await connection.executemany(EVENT, rows)
                for e in alerts:
                    row = (*who, batch_id, e.timestamp, now, e.data.title, e.data.severity, e.data.description or "")
                    await connection.execute(ALERT, *row)
    return Response(status_code=204)
