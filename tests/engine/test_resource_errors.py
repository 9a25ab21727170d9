"""Limits of the worker process itself: what counts as one, however libraries wrap it, and how the worker leaves."""

import threading

import pytest
from django.db import connections

from durable_agents import create_thread, lifecycle, notifications
from durable_agents.conf import default_cluster
from durable_agents.engine import worker
from durable_agents.engine.resource_errors import MAX_LIMITS, NO_THREAD, WorkerLimitError, is_limit
from durable_agents.engine.worker import Worker
from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.models import Stream, WorkerProblem


def wrapped(cause: BaseException, *, told: str = "Connection error.") -> ModelError:
    """As an error of a library in the middle of which another one was raised."""
    try:
        try:
            raise cause
        except BaseException:
            raise ModelError(ErrorKind.NETWORK, told, retryable=True)  # noqa: B904 - as some libraries do
    except ModelError as error:
        return error


@pytest.mark.parametrize(
    "cause", [RuntimeError("can't start new thread"), MemoryError(), WorkerLimitError("no thread")]
)
def test_error_that_comes_from_a_limit_is_the_workers_own(cause):
    assert is_limit(cause)
    assert is_limit(wrapped(cause))


def test_words_of_a_provider_are_not_the_workers_own_limit():
    assert not is_limit(wrapped(ValueError("x"), told="can't start new thread"))
    assert not is_limit(RuntimeError("something else"))


@pytest.fixture
def idle_worker(transactional_db):
    """Return a worker that has started and serves nobody."""
    idle_worker = Worker(default_cluster())
    idle_worker.start()
    yield idle_worker
    runtime = idle_worker.runtime
    for run in (runtime.in_database, runtime.in_lease_lane):
        runtime.loop.run_until_complete(run(connections.close_all))
    runtime.loop.close()


def test_worker_that_leaves_records_why_though_its_leases_are_checked_meanwhile(idle_worker, monkeypatch):
    """The check finds that the rows are no longer held, since they were given back: that ends nothing."""
    checks: list[set] = []
    is_checked = threading.Event()

    def checked(claims):
        checks.append(lost := lost_claims(claims))
        if len([one for one in checks if one]) > 1:  # what the first one found has been acted on
            is_checked.set()
        return lost

    async def lacks_a_thread(env, claim, handed):
        raise WorkerLimitError(NO_THREAD)

    lost_claims = lifecycle.lost_claims
    monkeypatch.setattr(lifecycle, "lost_claims", checked)
    monkeypatch.setattr(notifications, "notify_cluster", lambda cluster: is_checked.wait(5))
    monkeypatch.setattr(worker, "run_step", lacks_a_thread)
    for _ in range(MAX_LIMITS):
        create_thread("talker", prompt="Hi.")

    idle_worker.runtime.loop.run_until_complete(idle_worker._serve())

    assert any(checks), "no check came meanwhile"
    assert WorkerProblem.objects.get(kind="threads").detail.endswith(NO_THREAD)
    assert Stream.objects.filter(state="pending", attempt=1, crashes=0).count() == MAX_LIMITS
