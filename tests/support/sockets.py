"""Client actions on the socket."""

import json

from websockets.sync.client import ClientConnection


def receive(socket: ClientConnection, count: int) -> list[dict]:
    frames = [json.loads(socket.recv(timeout=10)) for _ in range(count)]
    assert all(frame["type"] == "alert" for frame in frames), frames
    return [frame["data"] for frame in frames]


def ping(socket: ClientConnection) -> None:
    """Ping, and wait for the pong. By then all alerts owed have been sent."""
    socket.send('{"type":"ping"}')
    assert json.loads(socket.recv(timeout=10)) == {"type": "pong"}
