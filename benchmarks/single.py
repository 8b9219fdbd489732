"""One event a request, 64 clients: requests a second against FastAPI and asyncpg, and the tail of our latency."""

import functools

from benchmarks import environment
from benchmarks.environment import say
from benchmarks.load import post
from benchmarks.throughput import requests

RUNS = 5
CLIENTS = 64


@functools.cache  # two rows come from the same runs
def runs() -> tuple[list[float], list[float]]:
    """The ratios of requests a second, and the ratios of our p99 to our median."""
    keys, ratios, tails = environment.make_keys(), [], []
    with environment.serving() as ours, environment.serving_other("benchmarks.fastapi_app:app") as theirs:
        for run in range(RUNS):
            rates = {}
            for name, server, count in (("theirs", theirs, 5_000), ("ours", ours, 20_000)):
                post(requests(keys, 500, 1, 100 + run), CLIENTS, server.port)
                environment.truncate()
                figures = post(requests(keys, count, 1, 1 + run), CLIENTS, server.port)
                rates[name] = figures["requests"] / figures["seconds"]
            ratios.append(rates["ours"] / rates["theirs"])
            tails.append(figures["p99"] / figures["p50"])
            say(f"{rates['ours']:7,.0f} requests/s   FastAPI {rates['theirs']:7,.0f}   p99 {figures['p99']:.0f} ms")
    return ratios, tails


def single_vs_fastapi() -> list[float]:
    return runs()[0]


def single_p99_vs_median() -> list[float]:
    return runs()[1]
