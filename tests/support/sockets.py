"""What a client of the socket does."""

import json

from websockets.sync.client import ClientConnection


def receive(socket: ClientConnection, count: int) -> list[dict]:
    frames = [json.loads(socket.recv(timeout=10)) for _ in range(count)]
    assert all(frame["type"] == "alert" for frame in frames), frames
    return [frame["data"] for frame in frames]


def ping(socket: ClientConnection) -> None:
    """Everything owed has been sent when the pong comes."""
    socket.send('{"type":"ping"}')
    assert json.loads(socket.recv(timeout=10)) == {"type": "pong"}
