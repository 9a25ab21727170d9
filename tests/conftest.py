"""What every test has: child processes on the test database, and the promise that nobody imports litellm too early."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from tests.chromium import chromium
from tests.servers.model import ModelUnderTest

__all__ = ["chromium"]

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """Refuse to run where collecting the tests imported litellm, which costs seconds and 170 MB."""
    if "litellm" in sys.modules:
        raise pytest.UsageError("litellm was imported while the tests were collected; import it inside the worker.")


@pytest.fixture(scope="session")
def child_env() -> dict[str, str]:
    """Return the environment of a Python process that a test starts, without a database of its own to use."""
    return {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def worker_env(transactional_db: None, child_env: dict[str, str]) -> dict[str, str]:
    """Return the environment of a process that works on this test's database."""
    return {**child_env, "TEST_DATABASE_URL": database_url()}


def database_url() -> str:
    """Return the URL of the database that the tests of this process use."""
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{settings['NAME']}"
    user = settings["USER"] + (f":{settings['PASSWORD']}" if settings["PASSWORD"] else "")
    host = settings["HOST"] + (f":{settings['PORT']}" if settings["PORT"] else "")
    return f"{connection.vendor}://{user}@{host}/{settings['NAME']}"


@pytest.fixture
def model_server() -> Iterator[ModelUnderTest]:
    """Return a running model server without a script: it answers "Hello." until told otherwise."""
    with ModelUnderTest() as server:
        yield server
