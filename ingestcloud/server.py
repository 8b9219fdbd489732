"""`python -m ingestcloud.server`: the server of `make run`, `make serve`, the tests and the benchmarks."""

import argparse
import os

import uvicorn
from django.conf import settings

GRACEFUL_SECONDS = 10


def main() -> None:
    """Serve until SIGTERM. HOST, PORT, WEB_CONCURRENCY and uvicorn's FORWARDED_ALLOW_IPS come from the environment."""
    parser = argparse.ArgumentParser(prog="python -m ingestcloud.server", description=__doc__)
    parser.add_argument("--access-log", action="store_true", help="a line for each request")
    parser.add_argument("--log-level", default="info", help="of the server's own lines")
    arguments = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ingestcloud.settings")
    uvicorn.run(
        "ingestcloud.asgi:application",
        host=os.environ.get("HOST") or "127.0.0.1",
        port=int(os.environ.get("PORT") or 8000),
        workers=int(os.environ.get("WEB_CONCURRENCY") or 1),
        http="ingestcloud.protocol:BoundedProtocol",
        ws="ingestcloud.socket_protocol:BoundedSocketProtocol",
        # A frame is the same bytes for every socket; compressing it would be extra work for each of them.
        ws_per_message_deflate=False,
        ws_max_size=4096,  # bytes; clients send only pings
        access_log=arguments.access_log,
        server_header=False,
        log_config=settings.LOGGING,  # makes the server's lines, and those of the workers' parent, as safe as ours
        log_level=arguments.log_level,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )


if __name__ == "__main__":
    main()
