"""The addresses of the health checks, and those that act as no user."""

from devices.paths import REGISTER_PATH
from ingest.paths import INGEST_PATH

HEALTH_PATHS = HEALTHZ, READYZ = "/healthz", "/readyz"
# A device is recognized by its key, and the health checks ask for no rows. Everything else acts as its user.
PATHS_WITHOUT_USER = frozenset({INGEST_PATH, REGISTER_PATH, *HEALTH_PATHS})
