"""Settings of the tests: the demo's, on databases and queues of the tests' own.

- `TEST_DATABASE_URL` names the database server; without it a SQLite file of this process is used.
- `TEST_DATABASE_POOL` gives PostgreSQL Django's own pool with these options (JSON).
- `TEST_DATABASE_SESSIONS=kept` keeps connections for as long as their threads live.
- `TEST_DATABASE_POOLER=transaction` makes the settings fit a server behind PgBouncer.
- `TEST_USE_TZ=0` and `TEST_TIME_ZONE` give a process times as projects without time zones have them.
- `TEST_COUNT_STATEMENTS` names a folder where `tests.project` keeps how many statements each process runs.
- `TEST_LOG_LEVEL` is the level of this package's log, `INFO` without it.
- `TEST_REDIS_URL` puts the queue and the channel layer on a Redis.

A process that a test starts gets the same variables, naming the test database itself (see `tests/conftest.py`).
"""

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

os.environ["TEST_PROCESS"] = os.environ.get("PYTEST_XDIST_WORKER", "main")
# A process that a test starts inherits the folder: its files are where the test looks for them.
if not os.environ.get("MEDIA_ROOT", "").endswith("-" + os.environ["TEST_PROCESS"]):
    os.environ["MEDIA_ROOT"] = tempfile.mkdtemp(prefix="durable-agents-tests-", suffix="-" + os.environ["TEST_PROCESS"])
    atexit.register(shutil.rmtree, os.environ["MEDIA_ROOT"], ignore_errors=True)
os.environ.setdefault("SECRET_KEY", "only-for-the-tests-of-this-project-0123456789")

from demo_project.settings import *
from demo_project.settings import broker, channel_layer, database

_sqlite = Path(tempfile.gettempdir()) / f"durable-agents-tests-{os.getpid()}.sqlite3"
_redis = os.environ.get("TEST_REDIS_URL", "")

DATABASES = {"default": database(os.environ.get("TEST_DATABASE_URL") or f"sqlite:///{_sqlite}")}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # A file, since a database in memory cannot be shared with the processes that tests start.
    DATABASES["default"]["TEST"] = {"NAME": DATABASES["default"]["NAME"]}
    # No test cuts the power of the machine.
    DATABASES["default"]["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
if "TEST_DATABASE_POOL" in os.environ:
    DATABASES["default"]["OPTIONS"] = {"pool": json.loads(os.environ["TEST_DATABASE_POOL"])}
if os.environ.get("TEST_DATABASE_SESSIONS") == "kept":
    DATABASES["default"]["CONN_MAX_AGE"] = None
if os.environ.get("TEST_DATABASE_POOLER") == "transaction":
    DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = True

CHANNEL_LAYERS = {"default": channel_layer(_redis)}
if "TEST_LAYER" in os.environ:  # another class of channels_redis
    CHANNEL_LAYERS["default"]["BACKEND"] = f"channels_redis.{os.environ['TEST_LAYER']}"
if _redis:  # other test runs may use other databases of the same server
    CHANNEL_LAYERS["default"]["CONFIG"]["prefix"] = f"tests-{urlsplit(_redis).path[1:]}-{os.environ['TEST_PROCESS']}"
INSTALLED_APPS = [*INSTALLED_APPS, "tests.project", "tests.releases"]
Q_CLUSTER = {
    "name": f"tests-{os.environ['TEST_PROCESS']}",  # pytest-xdist's processes have queues of their own on one Redis
    "workers": int(os.environ.get("TEST_WORKERS", "2")),
    "timeout": int(os.environ.get("TEST_Q_TIMEOUT", "300")),
    "retry": int(os.environ.get("TEST_Q_RETRY", "360")),
    **broker("" if os.environ.get("TEST_BROKER") == "orm" else _redis),
}
USE_TZ = os.environ.get("TEST_USE_TZ", "1") == "1"
TIME_ZONE = os.environ.get("TEST_TIME_ZONE", TIME_ZONE)
if "TEST_DATABASE_TIME_ZONE" in os.environ:
    DATABASES["default"]["TIME_ZONE"] = os.environ["TEST_DATABASE_TIME_ZONE"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DURABLE_AGENTS = json.loads(os.environ.get("TEST_DURABLE_AGENTS", "{}"))
LOGGING = {**LOGGING, "formatters": {"facts": {"()": "tests.logs.TimedFormatter"}}}
if "TEST_LOG_LEVEL" in os.environ:
    LOGGING["loggers"] = {**LOGGING["loggers"], "durable_agents": {"level": os.environ["TEST_LOG_LEVEL"]}}
