"""Settings of the tests: the demo's, on databases and queues of the tests' own.

- `TEST_DATABASE_URL` names the database server; without it a SQLite file of this process is used.
- `TEST_REDIS_URL` puts the queue and the channel layer on a Redis.

A process that a test starts gets the same variables, naming the test database itself (see `tests/conftest.py`).
"""

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path

if "MEDIA_ROOT" not in os.environ:  # else a process that a test started: files are where the test looks for them
    os.environ["MEDIA_ROOT"] = tempfile.mkdtemp(prefix="durable-agents-tests-")
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

CHANNEL_LAYERS = {"default": channel_layer(_redis)}
INSTALLED_APPS = [*INSTALLED_APPS, "tests.project", "tests.releases"]
Q_CLUSTER = {
    "name": "tests",
    "workers": int(os.environ.get("TEST_WORKERS", "2")),
    "timeout": int(os.environ.get("TEST_Q_TIMEOUT", "300")),
    "retry": int(os.environ.get("TEST_Q_RETRY", "360")),
    **broker(_redis),
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DURABLE_AGENTS = json.loads(os.environ.get("TEST_DURABLE_AGENTS", "{}"))
LOGGING = {**LOGGING, "formatters": {"facts": {"()": "tests.logs.TimedFormatter"}}}
