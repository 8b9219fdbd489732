"""The ASGI application: pages through Django, batches on their short way, alerts on the socket."""

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable
from typing import Any, cast

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ingestcloud.settings")
django_application = get_asgi_application()  # loads the apps; what follows needs them

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.conf import settings  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from alerts.consumers import SecurityAlertConsumer  # noqa: E402
from alerts.logins import with_login  # noqa: E402
from common.connections import OPERATION_SECONDS, BoundedConnection  # noqa: E402
from ingest.handler import PATH, IngestHandler, send_response  # noqa: E402
from ingest.refusals import rejection_queue  # noqa: E402
from ingest.refused_keys import refused_keys  # noqa: E402
from ingest.writer import writer  # noqa: E402
from ingestcloud.problems import problem  # noqa: E402

BoundedConnection.seconds = OPERATION_SECONDS  # a command may take longer, a server may not
ingest_application = IngestHandler(problem)
GARBAGE = 50_000  # objects more than there were, before the collector looks for those that nobody needs
CLOSE = {"Connection": "close"}  # the body is not read, and must not be taken for the next request


async def http_application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["path"] == PATH:
        await ingest_application(scope, receive, send)
    elif refusal := refuse_body(scope):
        await send_response(refusal, send)
    else:
        await django_application(scope, receive, send)


def refuse_body(scope: dict[str, Any]) -> HttpResponse | None:
    """Django puts a whole body on the disk before a page may refuse it: so a page takes none that is large."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"")
    if b"transfer-encoding" in headers:
        return problem(411, "length_required", "This address takes no body without a Content-Length.", headers=CLOSE)
    if length.isdigit() and int(length[:20]) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        return problem(413, "body_too_large", "The body is larger than this address takes.", headers=CLOSE)
    return None


async def lifespan(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """The server starts, and when it stops the writer's threads end with what they have taken stored."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            # What is loaded by now stays; looking through it again and again would be the longest pauses. A request
            # leaves nothing to collect, and by the usual threshold the search is a twentieth of the work.
            gc.collect()
            gc.freeze()
            gc.set_threshold(GARBAGE)
        if message["type"] == "lifespan.shutdown":
            await asyncio.to_thread(writer.close)
            await refused_keys.write()
            await rejection_queue.close()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def no_such_socket(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    """Refuses the handshake of a socket at an unknown address; the router alone would raise."""
    await receive()
    await send({"type": "websocket.close", "code": 4404})


application = ProtocolTypeRouter(
    {
        "http": http_application,
        "lifespan": lifespan,
        "websocket": AllowedHostsOriginValidator(
            with_login(
                URLRouter(
                    [
                        path("api/ws/security", cast("Any", SecurityAlertConsumer.as_asgi())),
                        re_path("", cast("Any", no_such_socket)),  # whatever it is: "/" and line breaks too
                    ]
                )
            )
        ),
    }
)
