"""The ASGI application: pages through Django, batches on their short way, alerts on the socket."""

import asyncio
import gc
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import urlsplit

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


async def http_application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["path"] == PATH:
        await ingest_application(scope, receive, send)
    else:
        await pages(scope, receive, send)


def end_with_parent() -> None:
    """Of several workers: if the process that looks after them was killed, they would serve on beside the next."""
    if (parent := multiprocessing.parent_process()) is None:
        return
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(parent.sentinel)
        signal.raise_signal(signal.SIGTERM)  # as if it had told us: what is on its way is finished

    loop.add_reader(parent.sentinel, end)  # at once, if it was killed while we were starting


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
            gc.set_threshold(GC_THRESHOLD)
            end_with_parent()
        if message["type"] == "lifespan.shutdown":
            await asyncio.to_thread(close_writer)
            await refused_keys.write()
            await rejection_queue.close()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def refuse_socket(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    """A 403 to the handshake; the router alone would raise at an unknown address."""
    await receive()
    await send({"type": "websocket.close"})


def with_sound_origin(application: Any) -> Any:
    """An Origin that is no URL, such as `http://[`, is a foreign one. The validator behind this would raise."""

    async def check(scope: Any, receive: Any, send: Any) -> None:
        try:
            for name, value in scope["headers"]:
                if name == b"origin":
                    urlsplit(value.decode("latin1")).port  # noqa: B018  it raises, and so does the splitting
        except ValueError:
            return await refuse_socket(scope, receive, send)
        return await application(scope, receive, send)

    return check


sockets = URLRouter(
    [
        path("api/ws/security", cast("Any", SecurityAlertConsumer.as_asgi())),
        re_path("", cast("Any", refuse_socket)),  # whatever it is: "/" and line breaks too
    ]
)
application = ProtocolTypeRouter(
    {
        "http": http_application,
        "lifespan": lifespan,
        "websocket": with_sound_origin(AllowedHostsOriginValidator(with_login(sockets))),
    }
)
