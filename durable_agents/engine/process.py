"""Manage a worker process from its start to its exit, during django-q2's tasks and between them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Iterator

from django.db import Error
from django_q.conf import Conf as QConf

from durable_agents import callbacks, lifecycle, lockfiles, notifications, task_queue, worker_identity
from durable_agents.calls_not_begun_files import calls_not_begun
from durable_agents.conf import cluster_of, config
from durable_agents.database_connections import close_all, close_pools, discard, discarding
from durable_agents.engine.model_step import estimate_spent
from durable_agents.engine.problem_reports import Attempts
from durable_agents.engine.resource_errors import LIMITED_EXIT_CODE, WorkerLimitError, start
from durable_agents.engine.watchdog import watch
from durable_agents.engine.worker import Worker, work_is_due
from durable_agents.live_delivery_counts import delivery_counts
from durable_agents.llm import door
from durable_agents.logs import log_error

REAP_SECONDS = 2.0
REAP_JITTER = 0.25
"""The share by which the time between two recoveries of dead processes' rows varies at random. A recovery also sends a
notification about due rows. During a deploy, clusters of two releases share a queue. At fixed intervals, all
notifications about a row might go to the cluster whose release cannot run the row.
"""
FAILED_START_SECONDS = 5.0
"""If a new worker cannot start an OS thread, it exits after this delay. Without the delay, django-q2 would start new
workers in quick succession.
"""
FIRST_REAP_SECONDS = 2.0
"""The workers of a cluster wait at most this long for the first recovery of the rows of dead processes."""

_workers: dict[tuple[int, str], Worker] = {}


def work(cluster: str) -> None:
    """Claim and run rows of the cluster's pools until none are due.

    Return immediately if enough processes of the cluster are already working.
    """
    with _slot(cluster) as slot:
        if slot is None:
            return
        key = (os.getpid(), cluster)  # the pid in the key keeps a forked process from using its parent's worker
        try:
            if key not in _workers:
                worker = Worker(cluster)
                worker.start()  # if this raises WorkerLimitError, the worker is not registered
                watch(worker)
                _workers[key] = worker
        except WorkerLimitError:
            log_error("this worker leaves: it cannot start a thread", action="worker_limit")
            os._exit(LIMITED_EXIT_CODE)
        _workers[key].work(slot=slot)


def sweep() -> None:
    """Clean up on a schedule, in case faster mechanisms have failed:

    - Recover the rows of dead workers.
    - End tool calls whose deadline has passed.
    - Fail rows whose agent or tool no worker knows.
    - Delete old data.
    - Notify workers of due rows.
    """
    # The stack calls these functions from last to first. If one fails, the others still run.
    with contextlib.ExitStack() as stages:
        stages.enter_context(discarding())
        stages.callback(_notify_for_due)
        stages.callback(lifecycle.prune)
        stages.callback(lifecycle.settle_unknown_code)
        stages.callback(lifecycle.expire)
        stages.callback(lifecycle.reap, worker_identity.is_gone, estimate_spent, calls_not_begun)


def _notify_for_due() -> None:
    for cluster in sorted({cluster_of(pool) for pool in config().pools}):
        if work_is_due(cluster):
            notifications.notify_cluster(cluster)


def reap_first() -> None:
    """Recover the rows of dead processes before the workers of a cluster start, so that these workers can claim the
    rows.

    The recovery runs in a separate process. The workers are forked from this process, and must not inherit the open
    connections of the recovery, for example to the database.
    """
    close_pools()
    reaper = multiprocessing.get_context("fork").Process(
        target=_reap_once, name="durable-agents-first-reaper", daemon=True
    )
    reaper.start()
    reaper.join(FIRST_REAP_SECONDS)


def _reap_once() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        lifecycle.reap(worker_identity.is_gone, estimate_spent, calls_not_begun)
    except Exception:
        log_error("reaping failed", action="reap")


def on_spawn() -> None:
    """Prepare a new django-q2 worker.

    Start an OS thread that recovers the rows of dead processes, and preload modules that are slow to import.
    """
    try:
        lifecycle.ensure_pools()
        task_queue.schedule_sweep()
    except Error:
        log_error("the database is not ready: are all migrations applied?", action="spawn")
        discard()
    callbacks.run_through(callbacks.in_own_thread)
    reaper = threading.Thread(target=_reap_for_ever, args=(os.getppid(),), daemon=True, name="durable-agents-reaper")
    try:
        start(reaper)
    except WorkerLimitError:
        log_error("this worker leaves: it cannot start a thread", action="worker_limit")
        time.sleep(FAILED_START_SECONDS)
        os._exit(LIMITED_EXIT_CODE)
    door().prepare()


@contextlib.contextmanager
def _slot(cluster: str) -> Iterator[int | None]:
    """Reserve one of the cluster's slots for working processes, and yield the slot's number. Yield None if all slots
    are taken.

    The operating system frees the slot when the process dies.
    """
    slots = config().processes or max(1, QConf.WORKERS - 1)
    for number in range(slots):
        descriptor = _lock_file(f"slot-{cluster}-{os.getppid()}-{number}")
        if descriptor is not None:
            try:
                yield number
            finally:
                os.close(descriptor)
            return
    yield None


def _lock_file(name: str) -> int | None:
    """Open and lock a file, and return its descriptor. Return None if another process holds the lock."""
    descriptor = lockfiles.open_lock(name)
    if lockfiles.take(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _reap_for_ever(parent: int) -> None:
    """Recover the rows of this machine's dead processes about every two seconds, and notify workers.

    Only one process of each cluster recovers rows. When that process dies, another takes over.

    ``parent`` is the pid of the process that started this process. After the parent's death, this process exits as soon
    as it is idle.
    """
    descriptor, reaping = None, Attempts("reaping", QConf.CLUSTER_NAME)
    while True:
        if os.getppid() != parent and not _is_working():
            os._exit(0)
        try:
            descriptor = descriptor or _lock_file(f"reaper-{parent}")
            if descriptor is not None:
                reaping.begin()
                _reap_and_notify()
                reaping.succeed()
        except Exception as error:
            reaping.fail(error)
            log_error("reaping failed", action="reap")
            discard()
        _log_problems(reaping)
        time.sleep(REAP_SECONDS * random.uniform(1 - REAP_JITTER, 1 + REAP_JITTER))  # noqa: S311 - no secret


def _reap_and_notify() -> None:
    lifecycle.reap(worker_identity.is_gone, estimate_spent, calls_not_begun)
    lifecycle.expire()
    if not _is_working() and work_is_due(QConf.CLUSTER_NAME) and not notifications.notify_cluster(QConf.CLUSTER_NAME):
        raise ConnectionError("The broker does not answer.")


def _log_problems(reaping: Attempts) -> None:
    """Report operations of this process that keep failing or that work again.

    An idle worker makes no claims. If its last claim failed, test here whether the database accepts writes again.
    """
    reaping.publish()
    reaping.store()
    for worker in list(_workers.values()):
        if not worker.is_working:
            worker.lease_health.succeed()  # an idle worker has no leases to extend
        if not worker.is_working and worker.claim_health.are_failing:
            try:
                lifecycle.try_to_write()
            except Exception as error:
                worker.claim_health.fail(error)
                discard()
            else:
                worker.claim_health.succeed()
        worker.claim_health.store()
        worker.lease_health.publish()
        worker.lease_health.store()
    if delivery_counts().are_due:
        lifecycle.store_delivery_counts()
        close_all()


def _is_working() -> bool:
    return any(worker.is_working for worker in _workers.values())
