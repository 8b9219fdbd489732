"""The ASGI application: pages through Django, batches by a shortcut past it, alerts on the socket."""

import asyncio
import gc
import multiprocessing
import os
import signal
from typing import Any, cast
from urllib.parse import urlsplit

import django
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ingestcloud.settings")
django.setup(set_prefix=False)  # loads the apps, which the imports below need

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from alerts.consumers import SecurityAlertConsumer  # noqa: E402
from alerts.group_consumer import GroupConsumer  # noqa: E402
from alerts.logins import with_login  # noqa: E402
from common.asgi import Application, Receive, Send  # noqa: E402
from common.cancellation import keep_cancelling  # noqa: E402
from common.connections import OPERATION_SECONDS, BoundedConnection  # noqa: E402
from ingest.handler import IngestHandler  # noqa: E402
from ingest.paths import INGEST_PATH  # noqa: E402
from ingest.refusals import rejection_queue  # noqa: E402
from ingest.refused_keys import refused_keys  # noqa: E402
from ingest.storing import close_writer  # noqa: E402
from ingest.tallies import latencies, refusals  # noqa: E402
from ingestcloud.pages import PageHandler, Pages  # noqa: E402
from ingestcloud.tasks import TASKS  # noqa: E402
from insights.worker import Worker  # noqa: E402

BoundedConnection.seconds = OPERATION_SECONDS  # a command may take longer, a server may not
ingest_application = IngestHandler()
pages = Pages(PageHandler())
GC_THRESHOLD = 50_000  # new objects before the garbage collector runs


async def http_application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["path"] == INGEST_PATH:
        await ingest_application(scope, receive, send)
    else:
        await pages(scope, receive, send)


def end_with_parent() -> None:
    """End this worker if its parent is killed: otherwise it would keep serving next to the next parent's workers."""
    if (parent := multiprocessing.parent_process()) is None:
        return
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(parent.sentinel)
        signal.raise_signal(signal.SIGTERM)  # as the parent would: requests in progress are finished

    loop.add_reader(parent.sentinel, end)  # fires at once if the parent was killed while we were starting


async def lifespan(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Prepare when the server starts. When it stops, end the writer's threads once all they accepted is stored."""
    worker = Worker(TASKS if settings.WORKER else ())
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            # Everything loaded by now stays, and scanning it repeatedly would cause the longest pauses. A request
            # leaves nothing to collect, and with the default threshold collecting is a twentieth of the work.
            gc.collect()
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD)
            end_with_parent()
            worker.start()
        if message["type"] == "lifespan.shutdown":
            await asyncio.gather(asyncio.to_thread(close_writer), asyncio.to_thread(worker.stop))
            await asyncio.gather(refused_keys.write(), refusals.write(), latencies.write())
            await rejection_queue.close()
            keep_cancelling(asyncio.get_running_loop())
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def refuse_socket(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer the handshake with 403; the router alone would raise for an unknown path."""
    await receive()
    await send({"type": "websocket.close"})


def with_sound_origin(application: Any) -> Application:
    """Refuse an Origin that is not a URL, such as `http://[`, like a foreign one. The validator behind would raise."""

    async def check(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            for name, value in scope["headers"]:
                if name == b"origin":
                    urlsplit(value.decode("latin1")).port  # noqa: B018  may raise, as may the splitting
        except ValueError:
            return await refuse_socket(scope, receive, send)
        return await application(scope, receive, send)

    return check


sockets = URLRouter(
    [
        path("api/ws/security", cast("Any", SecurityAlertConsumer.as_asgi())),
        path("api/ws/groups", cast("Any", GroupConsumer.as_asgi())),
        re_path("", cast("Any", refuse_socket)),  # any path: "/" and line breaks too
    ]
)
application = ProtocolTypeRouter(
    {
        "http": http_application,
        "lifespan": lifespan,
        "websocket": with_sound_origin(AllowedHostsOriginValidator(with_login(sockets))),
    }
)
