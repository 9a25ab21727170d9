"""Processes that tests start: the folder they run in, their environment, their database and their model."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from tests.servers.model import ModelUnderTest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def child_env() -> dict[str, str]:
    """Return the environment of a Python process that a test starts, without a database of its own to use."""
    # Options of this run of pytest are none of a pytest that a test starts.
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    return {**env, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def worker_env(transactional_db: None, child_env: dict[str, str]) -> dict[str, str]:
    """Return the environment of a process that works on this test's database, where no workers are yet."""
    # Here, since it loads models, and the fuzzer imports this module before there are settings.
    from tests.workers import Cluster

    assert not Cluster.alive, "Workers of other tests still answer this database's threads."
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
