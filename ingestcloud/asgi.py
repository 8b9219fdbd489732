"""The ASGI application: pages through Django, batches on their short way, alerts on the socket."""

import asyncio
import gc
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, cast

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ingestcloud.settings")
django.setup(set_prefix=False)  # loads the apps; what follows needs them

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from alerts.consumers import SecurityAlertConsumer  # noqa: E402
from alerts.logins import with_login  # noqa: E402
from common.connections import OPERATION_SECONDS, BoundedConnection  # noqa: E402
from common.problems import problem  # noqa: E402
from ingest.handler import PATH, IngestHandler  # noqa: E402
from ingest.refusals import rejection_queue  # noqa: E402
from ingest.refused_keys import refused_keys  # noqa: E402
from ingest.storing import close_writer  # noqa: E402
from ingestcloud.pages import PageHandler, Pages  # noqa: E402

BoundedConnection.seconds = OPERATION_SECONDS  # a command may take longer, a server may not
ingest_application = IngestHandler(problem)
pages = Pages(PageHandler())
GC_THRESHOLD = 50_000  # objects more than there were, before the collector looks for those that nobody needs
PARENT_LOOK_SECONDS = 1.0


async def http_application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["path"] == PATH:
        await ingest_application(scope, receive, send)
    else:
        await pages(scope, receive, send)


async def end_with_parent(parent: int) -> None:
    """Of several workers: where the process that looks after them was killed, they would serve on beside the next."""
    while os.getppid() == parent:  # noqa: ASYNC110  nobody tells us
        await asyncio.sleep(PARENT_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)  # as if it had told us: what is on its way is finished


async def lifespan(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """The server starts, and when it stops the writer's threads end with what they have taken stored."""
    watching: asyncio.Task[None] | None = None  # kept, because the event loop itself has only weak references
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            # What is loaded by now stays; looking through it again and again would be the longest pauses. A request
            # leaves nothing to collect, and by the usual threshold the search is a twentieth of the work.
            gc.collect()
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD)
            if multiprocessing.parent_process() is not None:
                watching = asyncio.create_task(end_with_parent(os.getppid()))
        if message["type"] == "lifespan.shutdown":
            await asyncio.to_thread(close_writer)
            await refused_keys.write()
            await rejection_queue.close()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            if watching is not None:
                watching.cancel()
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
