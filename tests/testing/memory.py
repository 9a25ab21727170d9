"""Settings of a project whose tests run on SQLite in memory, with a broker and a channel layer that nobody serves."""

from tests.settings import *

NOWHERE = "redis://127.0.0.1:9/0"

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
Q_CLUSTER = {"name": "memory", "workers": 1, "timeout": 60, "retry": 90, "redis": NOWHERE}
CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [NOWHERE]}}}
