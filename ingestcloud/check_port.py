"""`python check_port.py PORT`: can `make run` listen there? Asked before anything is installed, so without Django."""

import socket
import sys


def check_port(port: int) -> None:
    """Exit with an explanation if a server can't listen on `port` of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SystemExit(
                f"Port {port} can't be used ({error.strerror}). Choose another: make run PORT={port + 1}"
            ) from error
        except OverflowError as error:
            raise SystemExit(f"There is no port {port}.") from error


if __name__ == "__main__":
    check_port(int(sys.argv[1]))
