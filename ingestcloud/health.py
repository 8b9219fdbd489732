"""Is the process alive, and can it work?"""

import asyncio
from typing import cast

from asgiref.sync import async_to_sync
from channels.layers import BaseChannelLayer, get_channel_layer
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

LAYER_TIMEOUT = 2.0  # seconds


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 as long as the process answers at all."""
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when the database and the channel layer answer, else 503 naming which does not."""
    parts = {"database": _database_answers(), "channel_layer": async_to_sync(_layer_answers)()}
    ready = all(parts.values())
    body = {"status": "ok" if ready else "unavailable"}
    body |= {name: "ok" if answers else "unavailable" for name, answers in parts.items()}
    return JsonResponse(body, status=200 if ready else 503)


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True


async def _layer_answers() -> bool:
    try:
        async with asyncio.timeout(LAYER_TIMEOUT):
            layer = cast("BaseChannelLayer", get_channel_layer())  # settings always have one
            await layer.group_send("readyz", {"type": "readyz"})
    except Exception:  # noqa: BLE001  each layer has exceptions of its own
        return False
    return True
