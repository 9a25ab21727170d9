"""A worker in the process of the test."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connections

from durable_agents.conf import default_cluster
from durable_agents.engine.worker import Worker


@contextmanager
def started() -> Iterator[Worker]:
    """Yield a worker of the default cluster; its database connections and its event loop are closed at the end."""
    worker = Worker(default_cluster())
    worker.start()
    yield worker
    for run in (worker.runtime.in_database, worker.runtime.in_lease_lane):
        worker.runtime.loop.run_until_complete(run(connections.close_all))
    worker.runtime.loop.close()


@pytest.fixture
def worker(transactional_db):
    """Return a worker of the default cluster."""
    with started() as worker:
        yield worker


@pytest.fixture
def worker_on_own_postgres(own_postgres):
    """Return the same on a PostgreSQL server that only this test uses."""
    with started() as worker:
        yield worker
