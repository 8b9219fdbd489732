"""A proxy in front of a server, like a balancer or a pooler, that can stop forwarding without closing anything."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class StallingProxy:
    """Listens on `port` and forwards each connection to the socket that `connect` returns.

    During a stall the connections already open forward nothing, and new ones work.
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._generation = 0
        self._flows = threading.Condition()
        self._stalled_below = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        with self._flows:
            self._stalled_below = self._generation = self._generation + 1

    def release(self) -> None:
        with self._flows:
            self._stalled_below = 0
            self._flows.notify_all()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._serve, args=[client, server, self._generation], daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket, generation: int) -> None:
        with client, server:
            answers = threading.Thread(target=self._pass_on, args=[server, client, generation], daemon=True)
            answers.start()
            self._pass_on(client, server, generation, self.look)
            answers.join()

    def look(self, data: bytes) -> None:
        """Called with the data that a client sends, before it is forwarded."""

    def _pass_on(
        self, source: socket.socket, target: socket.socket, generation: int, look: Callable[[bytes], None] | None = None
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if look:
                    look(data)
                with self._flows:
                    self._flows.wait_for(lambda: generation >= self._stalled_below)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class StallingAt(StallingProxy):
    """Stalls one connection at data that contains `marker`, after passing `skip` such pieces: that piece and all later
    data are held back until `go_on` is set. `stalled` is set once they are.
    """

    def __init__(self, connect: Callable[[], socket.socket], marker: bytes, skip: int = 0) -> None:
        self._marker, self._skip = marker, skip
        self.stalled, self.go_on = threading.Event(), threading.Event()
        super().__init__(connect)

    def look(self, data: bytes) -> None:
        if self._marker not in data or self.stalled.is_set():
            return
        self._skip -= 1
        if self._skip < 0:
            self.stalled.set()
            self.go_on.wait(60)
