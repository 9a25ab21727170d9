"""Settings of the shop. The environment names PostgreSQL and Redis; without them, SQLite is the database and queue."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import django

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "for tests only, and long enough for check --deploy: 7b1f0c")
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]
ROOT_URLCONF = "mysite.urls"
ASGI_APPLICATION = "mysite.asgi.application"
WEBHOOK_SECRET = os.environ.get("SHOP_WEBHOOK_SECRET", "shared with the warehouse")
CARRIER_URL = os.environ.get("SHOP_CARRIER_URL", "")

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
    "django_q",
    "durable_agents",
    "people",
    "shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
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

# ------------------------------------------------ people

AUTH_USER_MODEL = "people.User"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LANGUAGE_CODE = "de"
TIME_ZONE = "Europe/Berlin"
USE_TZ = True

# ------------------------------------------------ database, queue, channel layer

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
postgres = urlsplit(os.environ.get("SHOP_DATABASE_URL", ""))
redis = os.environ.get("SHOP_REDIS_URL")
name = os.environ.get("SHOP_NAME", "shop")

if postgres.scheme:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": postgres.path.removeprefix("/"),
            "USER": postgres.username or "",
            "PASSWORD": postgres.password or "",
            "HOST": postgres.hostname or "",
            "PORT": postgres.port or "",
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": BASE_DIR / "db.sqlite3",
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL;",
            },
        }
    }
DATABASES["default"]["ATOMIC_REQUESTS"] = True

Q_CLUSTER = {"name": name, "orm": "default", "workers": 3, "timeout": 300, "retry": 360}
if redis:
    del Q_CLUSTER["orm"]
    Q_CLUSTER["redis"] = f"{redis}?socket_timeout=10&socket_connect_timeout=2"
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {
                "hosts": [{"address": redis, "socket_timeout": 10, "socket_connect_timeout": 2}],
                "prefix": name,
            },
        }
    }

# ------------------------------------------------ agents

DURABLE_AGENTS = {
    "POLICY": "shop.policies.OrganisationPolicy",
    "OWNER_ON_DELETE": "keep",
    "DEFAULT_AGENT": "support",
}

# ------------------------------------------------ files

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "collected"
MEDIA_ROOT = BASE_DIR / "media"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}

# ------------------------------------------------ Content-Security-Policy

SECURE_CSP = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "img-src": ["'self'"],
    "connect-src": ["'self'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
    "base-uri": ["'none'"],
}
if django.VERSION >= (6,):
    MIDDLEWARE += ["django.middleware.csp.ContentSecurityPolicyMiddleware"]
else:
    INSTALLED_APPS += ["csp"]
    MIDDLEWARE += ["csp.middleware.CSPMiddleware"]
    CONTENT_SECURITY_POLICY = {"DIRECTIVES": SECURE_CSP}
