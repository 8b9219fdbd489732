"""All settings, from the environment, closed by default.

Every variable is described in docs/operations.md; a test fails if one is not.
"""

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

from csp.constants import NONE, SELF
from django.urls import reverse_lazy
from environs import Env, EnvError

from common.connections import BoundedConnection
from ingestcloud.admin_theme import UNFOLD  # noqa: F401  a setting of the admin's theme
from ingestcloud.paths import PATHS_WITHOUT_USER  # noqa: F401  a setting of tenants.isolation

BASE_DIR = Path(__file__).resolve().parent.parent

env = Env(eager=True)
# `make run` keeps the settings that it generates in .env; the process's own environment takes precedence.
env.read_env(str(BASE_DIR / ".env"), recurse=False)


def required(name: str, hint: str) -> str:
    value = env.str(name, "").strip()
    if not value:
        raise SystemExit(f"{name} is not set: {hint}")
    return value


try:
    DEBUG = env.bool("DEBUG", False)
    HTTPS = env.bool("HTTPS", not DEBUG)
    SECRET_KEY = required("SECRET_KEY", "put a long random string into the environment, or use `make run`.")
    ALLOWED_HOSTS = [
        host.strip()
        for host in required(
            "ALLOWED_HOSTS", "list the host names of this site, comma-separated, or use `make run`."
        ).split(",")
    ]
    DATABASES: dict[str, Any] = {
        "default": env.dj_db_url("DATABASE_URL", f"sqlite:///{BASE_DIR / 'ingestcloud.sqlite3'}")
    }
    DATABASE_PREPARE = env.bool("DATABASE_PREPARE", True)
    REDIS_URL = env.str("REDIS_URL", "")
    WEB_CONCURRENCY = env.int("WEB_CONCURRENCY", 1)
    WORKER = env.bool("WORKER", True)
    INGEST_MAX_EVENTS = env.int("INGEST_MAX_EVENTS", 1000)
    INGEST_MAX_BYTES = env.int("INGEST_MAX_BYTES", 5 * 1024 * 1024)
    INGEST_BACKLOG_BYTES = env.int("INGEST_BACKLOG_BYTES", 64 * 1024 * 1024)
    INGEST_BODY_SECONDS = env.int("INGEST_BODY_SECONDS", 20)
    INGEST_EVENTS_PER_SECOND = env.int("INGEST_EVENTS_PER_SECOND", 0)
    INGEST_BURST = env.int("INGEST_BURST", 10_000)
    REJECTED_MAX_BYTES = env.int("REJECTED_MAX_BYTES", 128 * 1024)
    REJECTED_PER_DEVICE = env.int("REJECTED_PER_DEVICE", 50)
    REJECTED_HOURS = env.int("REJECTED_HOURS", 24)
    DEMO_DEVICE_KEY = env.str("DEMO_DEVICE_KEY", "")
    DEMO_ADMIN_PASSWORD = env.str("DEMO_ADMIN_PASSWORD", "")
    LOG_LEVEL = env.log_level("LOG_LEVEL", logging.INFO)
except EnvError as error:
    raise SystemExit(f"A setting in the environment is wrong: {error}") from error
except ValueError as error:
    raise SystemExit(f"DATABASE_URL is wrong: {error}") from error

INSTALLED_APPS = [
    "daphne",  # before staticfiles: it replaces runserver
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "csp",
    "rest_framework",
    "drf_spectacular",
    "channels",
    "ingestcloud.apps.IngestCloudConfig",
    "tenants",
    "exports",
    "devices",
    "alerts",
    "ingest",
    "insights",
]

# The order matters. Problems come first, because they turn the errors of all others into JSON. A form is checked before
# anything reads it, and the session, its user and the turn to hash a password come before the page's transaction. Axes
# should be last, its documentation says.
MIDDLEWARE = [
    "common.problems.ProblemDetailsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "ingestcloud.csp.PolicyMiddleware",
    "ingestcloud.forms.FormMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "ingestcloud.sessions.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "tenants.audit.AuditMiddleware",
    "ingestcloud.login.PasswordMiddleware",
    "tenants.isolation.TenantIsolationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "ingestcloud.urls"
ASGI_APPLICATION = "ingestcloud.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"].setdefault("OPTIONS", {}).update(
        # One writer at a time: take the lock at BEGIN, because only there a transaction can wait
        # for it, and let every commit reach the disk before it is acknowledged.
        transaction_mode="IMMEDIATE",
        timeout=5,
        init_command="PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    )
else:
    # CONN_MAX_AGE does nothing for views under ASGI; the pool takes its place. A wrong database
    # password shows as a pool timeout, so that timeout is short.
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    # `reconnect_timeout`: the pool backs off with every attempt, and would still wait once the database is back.
    pool = {
        "connection_class": BoundedConnection,
        "min_size": 1,
        # One for everything that may run at the same time, so that pages never take the connections that devices need:
        # 8 pages and 2 registrations (ingestcloud.pages), 4 threads for sockets, 5 for keys and refusals, 2 for health,
        # 1 for what searches read, 2 for periodic tasks, 2 writers.
        "max_size": 26,
        "timeout": 3,
        "reconnect_timeout": 3,
        "max_idle": 30,
    }
    # If the network drops packets, a connection ends within seconds, not the two hours of the system's defaults.
    network = {
        "connect_timeout": 3,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "tcp_user_timeout": 15_000,
    }
    # Planning the statement that stores a group of batches takes as long as running it if they are small.
    prepare = {"prepare_threshold": 5 if DATABASE_PREPARE else None}
    DATABASES["default"]["OPTIONS"] = {"pool": pool} | network | DATABASES["default"].get("OPTIONS", {}) | prepare

CHANNEL_LAYERS: dict[str, Any] = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "prefix": "ingestcloud"},
    }
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # first, because it refuses users with too many wrong passwords
    "django.contrib.auth.backends.ModelBackend",
]
PASSWORD_HASHERS = [
    "ingestcloud.login.PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",  # of passwords set before; the next login hashes them again
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = reverse_lazy("login")
LOGIN_REDIRECT_URL = reverse_lazy("console")
LOGOUT_REDIRECT_URL = LOGIN_URL

# By name and address: by name alone, anyone could lock an analyst out. The server gets the address from its proxy.
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_CLIENT_IP_CALLABLE = "ingestcloud.login.network_of"
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_CALLABLE = "ingestcloud.login.locked_out"
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

# For our own pages. `ingestcloud.csp` adds what the admin's theme needs.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"  # not in a cookie of its own
CSRF_COOKIE_HTTPONLY = True  # no script needs it: the forms contain the CSRF token
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
# A browser accepts a cookie with this prefix only from this very host and over TLS, so no other host of the domain can
# set it.
COOKIE_PREFIX = "__Host-" if HTTPS else ""
SESSION_COOKIE_NAME = f"{COOKIE_PREFIX}ingestcloud_session"
CSRF_COOKIE_NAME = f"{COOKIE_PREFIX}ingestcloud_csrf"
SESSION_ENGINE = "tenants.sessions"
SESSION_COOKIE_AGE = 12 * 60 * 60  # seconds without use, as recorded on the server
# The cookie has no end of its own: an open page prolongs the session without a response that could prolong a cookie.
SESSION_EXPIRE_AT_BROWSER_CLOSE = True
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
# The proxy that ends TLS redirects; devices post to the same port and must never be redirected.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W008", "security.W021"]

# Each view names its own authentication, which raises for anyone else; the schema is public.
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "common.problems.exception_handler",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "IngestCloud",
    "DESCRIPTION": "Devices register themselves and send batches of events. docs/devices.md explains it.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {"AlertSeverity": "alerts.models.Severity"},
}

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English")]  # the admin's theme goes through all of them on every page
FORMAT_MODULE_PATH = ["ingestcloud.formats"]
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "ingestcloud.staticfiles.StaticFilesStorage"},
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "class": "ingestcloud.logs.LineFormatter",
            "format": "{asctime} {levelname} {name} {message}",
            "style": "{",
        }
    },
    "filters": {"seldom_refusals": {"()": "ingestcloud.logs.SeldomRefusals"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["seldom_refusals"]},
        "nowhere": {"class": "logging.NullHandler"},
    },
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": [], "propagate": True},
        "axes": {"level": "WARNING"},  # otherwise three lines per login
        # Any client can cause it, it carries a traceback, and django.request logs the 400 anyway.
        "django.security.DisallowedHost": {"handlers": ["nowhere"], "propagate": False},
    },
}
