"""Is the process alive, and is it able to work?"""

import asyncio
from collections.abc import Awaitable
from typing import cast

from channels.layers import BaseChannelLayer, get_channel_layer
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from common import sequences
from common.database import QueryThreads
from ingestcloud.tasks import TASKS
from insights.worker import late

ANSWER_SECONDS = 1.5  # for each part that is checked: the answer comes within two seconds, whatever hangs

_queries = QueryThreads("health", 2)


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """Answer 200 as long as the process can answer at all."""
    return JsonResponse({"status": "ok"})


@require_safe
async def readyz(request: HttpRequest) -> JsonResponse:
    """200 if database and channel layer respond and no sequence is behind its table, else 503 with the reason.

    Periodic tasks that are late are named, but no reason to send devices elsewhere.
    """
    database, channel_layer, worker = await asyncio.gather(
        _state_of(_queries.run(_database_state)),
        _state_of(_channel_layer_state()),
        _state_of(_queries.run(_worker_state)),
    )
    ready = database == channel_layer == "ok"
    body = {
        "status": "ok" if ready else "unavailable",
        "database": database,
        "channel_layer": channel_layer,
        "worker": worker,
    }
    return JsonResponse(body, status=200 if ready else 503)


async def _state_of(part: Awaitable[str]) -> str:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await part
    except Exception:  # noqa: BLE001  whatever it is; each channel layer has its own exceptions
        return "unavailable"


def _database_state() -> str:
    if connection.vendor != "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return "ok"
    behind = ", ".join(sequences.behind())
    return f"the sequence is behind the table: {behind}" if behind else "ok"


async def _channel_layer_state() -> str:
    layer = cast("BaseChannelLayer", get_channel_layer())  # settings always have one
    await layer.group_send("readyz", {"type": "readyz"})
    return "ok"


def _worker_state() -> str:
    names = ", ".join(late(TASKS, timezone.now()))
    return f"late: {names}" if names else "ok"
