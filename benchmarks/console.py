"""The console in a real Chromium, over a hundred thousand groups and with fifty alerts a second."""

import http.client
import itertools
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks import environment, find
from benchmarks.environment import say

GROUPS = 100_000
ALERTS_PER_SECOND = 50
LOADED = 11_500  # groups: more than a page keeps
WINDOW_SECONDS = 0.8
CLICKS = 15
FLUSH_SECONDS = 20
TENANT = environment.TENANTS[0]


class Console:
    """An open console, and what Chromium counts about it."""

    def __init__(self, page, server: environment.Serving, key: str) -> None:
        self.page, self.server, self.key = page, server, key
        self.chromium = page.context.new_cdp_session(page)
        self.chromium.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.flushes = 0
        page.on("websocket", lambda socket: socket.on("framereceived", self._count))

    def _count(self, frame: str | bytes) -> None:
        self.flushes += str(frame).startswith('{"type":"groups"')

    def busy_ms(self) -> float:
        """The CPU time of the page's main thread."""
        metrics = self.chromium.send("Performance.getMetrics")["metrics"]
        return 1000 * next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    def heap_bytes(self) -> float:
        self.chromium.send("HeapProfiler.collectGarbage")
        return self.chromium.send("Runtime.getHeapUsage")["usedSize"]

    def click(self, x: float, y: float) -> None:
        """Without looking anything up in the page, which would be counted."""
        for kind in ("mousePressed", "mouseReleased"):
            event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
            self.chromium.send("Input.dispatchMouseEvent", event)

    def work_of(self, action: Callable[[], None]) -> float:
        """The milliseconds of CPU in a short while that begins with `action`."""
        before = self.busy_ms()
        action()
        self.page.wait_for_timeout(1000 * WINDOW_SECONDS)
        return self.busy_ms() - before


@contextmanager
def open_console() -> Iterator[Console]:
    """A console that holds as many groups as it keeps, while alerts come in: every second one begins a group."""
    from django.db import connection
    from playwright.sync_api import sync_playwright

    from tests.support.browser import CHROMIUM, DESK, QUIET

    key = environment.make_keys()[0]
    environment.truncate()
    with connection.cursor() as cursor:
        cursor.execute(find.FILL, [GROUPS, [TENANT]])
        cursor.execute("VACUUM ANALYZE alert_groups")
    name, _, value = environment.log_in(TENANT).partition("=")
    with environment.serving() as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        context = browser.new_context(viewport=DESK)  # type: ignore[arg-type]
        context.add_cookies([{"name": name, "value": value, "url": f"http://127.0.0.1:{server.port}"}])
        console = Console(context.new_page(), server, key)
        console.page.goto(f"http://127.0.0.1:{server.port}/alerts/")
        console.page.locator("#connection[data-state=open]").wait_for()
        for number in range(0, LOADED, 500):
            post(server.port, key, [alert(f"First {each}") for each in range(number, number + 500)])
        console.page.wait_for_timeout(3000)
        with coming_in(server.port, key):
            console.page.wait_for_timeout(2000)
            yield console
        browser.close()
    environment.truncate()


def alert(title: str) -> dict[str, object]:
    data = {"title": title, "severity": "medium", "source_ip": "192.168.1.100", "description": str(time.time_ns())}
    return {"kind": "security_alert", "timestamp": "2026-06-06T10:00:00Z", "data": data}


def post(port: int, key: str, events: list[dict[str, object]]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/v1/ingest", json.dumps(events), {"X-Device-Key": key})
    if connection.getresponse().status != 204:
        raise SystemExit("an alert was not stored")
    connection.close()


@contextmanager
def coming_in(port: int, key: str) -> Iterator[None]:
    """One alert at a time, at even distances."""
    ends = threading.Event()

    def send() -> None:
        began = time.monotonic()
        for number in itertools.count():
            post(port, key, [alert(f"Coming {number}" if number % 2 else f"Repeat {number % 20}")])
            if ends.wait(max(0.0, began + number / ALERTS_PER_SECOND - time.monotonic())):
                return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def console_click_ms() -> list[float]:
    """What each kind of click costs, without what the alerts cost meanwhile."""
    with open_console() as console:
        figures = []
        for name, selector in CLICKABLE.items():
            box = console.page.locator(selector).bounding_box()
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            costs = []
            for _ in range(CLICKS):
                without = console.work_of(lambda: None)
                costs.append(console.work_of(lambda: console.click(x, y)) - without)  # noqa: B023
                console.page.keyboard.press("Escape")  # closes what was opened, and selects nothing
            figures.append(statistics.median(costs))
            say(f"{name}: {figures[-1]:.0f} ms")
    return figures


CLICKABLE = {
    "filter by severity": "[data-filter=severity][data-value=medium]",
    "select": "#groups .row:nth-child(6) .row-check",
    "open": "#groups .row:nth-child(8) .row-name",
}


def console_flush_ms() -> list[float]:
    """The work for one frame of the socket, with everything else that the page does meanwhile."""
    with open_console() as console:
        figures = []
        for _ in range(5):
            before, console.flushes = console.busy_ms(), 0
            console.page.wait_for_timeout(1000 * FLUSH_SECONDS)
            figures.append((console.busy_ms() - before) / console.flushes)
            say(f"{figures[-1]:.1f} ms for each of {console.flushes} frames")
    return figures


def console_heap_growth() -> list[float]:
    """The heap after ten minutes, against at the beginning, when the page has as many groups as it keeps."""
    minutes = int(os.environ.get("BENCH_MINUTES", "10"))
    with open_console() as console:
        first = console.heap_bytes()
        for minute in range(1, minutes + 1):
            console.page.wait_for_timeout(60_000)
            last = console.heap_bytes()
            say(f"minute {minute}: {last / 2**20:.1f} MiB, at first {first / 2**20:.1f} MiB")
    return [last / first]
