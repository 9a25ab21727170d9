"""Clusters of real workers for the crash tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.servers.model import ModelUnderTest
from tests.servers.postgres import PostgresUnderTest
from tests.workers import Cluster, running


@pytest.fixture
def start(worker_env: dict[str, str], model_server: ModelUnderTest) -> Iterator[Callable[..., Cluster]]:
    """Start a cluster of ready workers on this test's database and model server; all are stopped at the end."""
    with ExitStack() as stack:

        def start(workers: int = 2, **extra: str) -> Cluster:
            return stack.enter_context(running(worker_env, workers=workers, TEST_MODEL_URL=model_server.url, **extra))

        yield start


@pytest.fixture
def start_on_own(own_postgres: PostgresUnderTest, model_server: ModelUnderTest) -> Iterator[Callable[..., Cluster]]:
    """Start a cluster of ready workers on this test's own PostgreSQL and model server; all are stopped at the end."""
    with ExitStack() as stack:

        def start(workers: int = 2, user: str | None = None, **extra: str) -> Cluster:
            env = own_postgres.env | {"TEST_MODEL_URL": model_server.url}
            return stack.enter_context(running(env, workers=workers, user=user, **extra))

        yield start
