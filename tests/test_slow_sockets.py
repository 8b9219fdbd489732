"""What a socket does whose client reads more slowly than frames come."""

import asyncio

from alerts.consumers import SecurityAlertConsumer
from alerts.live_socket import INBOX_LIMIT


async def test_after_a_lost_frame_no_later_one_is_accepted():
    """It would make the socket believe that everything before it was sent."""
    socket = SecurityAlertConsumer()
    socket.inbox = asyncio.Queue()
    socket.is_behind = False
    for pk in range(INBOX_LIMIT + 1):
        socket.deliver([(pk, "frame")])
    assert socket.is_behind
    socket.inbox.get_nowait()  # there is room again
    socket.deliver([(INBOX_LIMIT + 1, "later")])
    assert socket.inbox.qsize() == INBOX_LIMIT - 1
