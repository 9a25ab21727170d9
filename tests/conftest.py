"""The plugins of the tests, and the promise that nobody imports litellm too early."""

import os
import sys

import pytest

# The tests start hundreds of processes; each of them would compile the same modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

pytest_plugins = [
    "tests.distribution",
    "tests.garbage",
    "tests.database",
    "tests.certificates",
    "tests.chromium",
    "tests.processes",
    "tests.proof",
    "tests.servers.disk",
    "tests.servers.postgres",
    "tests.servers.redis",
    "tests.lifecycle.stage",
    "tests.api.clients",
]


def pytest_collection_finish() -> None:
    """Refuse to run where collecting the tests imported litellm, which costs seconds and 170 MB."""
    if "litellm" in sys.modules:
        raise pytest.UsageError("litellm was imported while the tests were collected; import it inside the worker.")
