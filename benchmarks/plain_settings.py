"""The project's settings, with the plain way in place of its own URLs."""

from ingestcloud.settings import *  # noqa: F403

ROOT_URLCONF = "benchmarks.plain_app"

# Sixteen clients share its ten connections, and wait for seconds.
DATABASES["default"]["OPTIONS"]["pool"]["timeout"] = 60  # noqa: F405
