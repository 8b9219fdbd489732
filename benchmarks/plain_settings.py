"""The project's settings, with the plain way in place of its own addresses."""

from ingestcloud.settings import *  # noqa: F403

ROOT_URLCONF = "benchmarks.plain_app"
