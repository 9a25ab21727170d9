"""Settings of the demo project.

Everything runs on one SQLite file unless the environment says otherwise:

- `DATABASE_URL`: for example `postgres://user@localhost/demo`.
- `REDIS_URL`: a Redis server for the queue and the channel layer.
- `MEDIA_ROOT`: the directory for uploaded files, by default `media`.
- `SECRET_KEY`: by default, a key is generated for this checkout and kept in `.demo-secret`.
- `ALLOWED_HOSTS`, `CSRF_TRUSTED_ORIGINS`: comma-separated; loopback only by default.
- `DEBUG`: `0` switches it off.
"""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

import dj_database_url

BASE_DIR = Path(__file__).resolve().parent.parent


def listed(name: str, default: str = "") -> list[str]:
    """Return the comma-separated values of the environment variable `name`."""
    return [value.strip() for value in os.environ.get(name, default).split(",") if value.strip()]


def checkout_secret(path: Path) -> str:
    """Return the secret key of this checkout. The first call creates the key file, which only its owner can read.

    The key also signs the tasks in the queue. With a well-known key, anyone who can write to the queue could run code.
    """
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name) as file:
            file.write(secrets.token_urlsafe(50))
            file.flush()
            # Link the complete temporary file to the path. If two processes start at the same time, the second link
            # fails, and both processes use the first key.
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    return path.read_text(encoding="ascii")


def database(url: str) -> Any:
    """Return Django's database settings for `url`; SQLite gets options for many concurrent writers."""
    settings = dj_database_url.parse(url)
    if settings["ENGINE"].endswith("sqlite3"):
        settings["OPTIONS"] = {
            # By default, SQLite does not wait for another writer if a transaction began with a read. The write fails
            # immediately.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
    return settings


def channel_layer(redis_url: str) -> dict[str, Any]:
    """Return the settings of a channel layer on `redis_url`, or of the in-memory layer if `redis_url` is empty."""
    if not redis_url:
        return {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    # Without a timeout, a read from a dead connection would block for ever.
    hosts = [{"address": redis_url, "socket_timeout": 10, "socket_connect_timeout": 2}]
    # The messages of this layer reach all databases of a Redis server, so the prefix has to differ for each project.
    config = {"hosts": hosts, "prefix": "durable-agents-demo"}
    return {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": config}


def broker(redis_url: str) -> dict[str, Any]:
    """Return the settings of the queue's broker: Redis at `redis_url`, or the default database if the URL is empty."""
    timeouts = "" if "?" in redis_url else "?socket_timeout=10&socket_connect_timeout=2"
    return {"redis": redis_url + timeouts} if redis_url else {"orm": "default"}


SECRET_KEY = os.environ.get("SECRET_KEY") or checkout_secret(BASE_DIR / ".demo-secret")
DEBUG = os.environ.get("DEBUG", "1") == "1"
ALLOWED_HOSTS = listed("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = listed("CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "rest_framework.authtoken",
    "drf_spectacular",
    "django_q",
    "durable_agents",
    "demo_project",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "demo_project.csp.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

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
            ],
        },
    },
]

ROOT_URLCONF = "demo_project.urls"
ASGI_APPLICATION = "demo_project.asgi.application"
LOGIN_URL = "/accounts/login/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/accounts/login/"

DATABASES = {"default": database(os.environ.get("DATABASE_URL") or f"sqlite:///{BASE_DIR / 'demo.sqlite3'}")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CHANNEL_LAYERS = {"default": channel_layer(os.environ.get("REDIS_URL", ""))}
Q_CLUSTER = {
    "name": "demo",
    "workers": 3,
    "timeout": 300,
    "retry": 360,
    "log_level": "WARNING",
    **broker(os.environ.get("REDIS_URL", "")),
}
# The demo must stop within 10 seconds, so workers wait only 3 seconds for running answers. Unfinished answers continue
# at the next start.
DURABLE_AGENTS: dict[str, Any] = {
    "DRAIN_SECONDS": 3,
    "POLICY": "demo_project.policies.DemoPolicy",
    "TRUSTED_ORIGINS": CSRF_TRUSTED_ORIGINS,
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication",
        "rest_framework.authentication.BasicAuthentication",
        "rest_framework.authentication.TokenAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS = {"TITLE": "durable_agents demo", "VERSION": "0.1.0", "SERVE_INCLUDE_SCHEMA": False}

# Uploaded files are served only by the app, which checks who may see them. No web server may serve this directory.
MEDIA_ROOT = os.environ.get("MEDIA_ROOT") or BASE_DIR / "media"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
TIME_ZONE = "UTC"
USE_TZ = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"facts": {"()": "demo_project.logs.FactsFormatter"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "facts"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    # At INFO, django-q2 reports when its workers are ready.
    "loggers": {"durable_agents": {"level": "INFO"}, "django-q": {"level": "INFO"}},
}
