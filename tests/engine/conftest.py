"""A worker in the process of the test."""

import pytest
from django.db import connections

from durable_agents.conf import default_cluster
from durable_agents.engine.worker import Worker


@pytest.fixture
def worker(transactional_db):
    """Return a worker of the default cluster; its database connections and its event loop are closed at the end."""
    worker = Worker(default_cluster())
    worker.start()
    yield worker
    for run in (worker.runtime.in_database, worker.runtime.in_lease_lane):
        worker.runtime.loop.run_until_complete(run(connections.close_all))
    worker.runtime.loop.close()
