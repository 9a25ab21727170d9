"""What one worker process does for agents from its birth to its death, between django-q2's tasks and beside them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator

from django.db import DatabaseError, connections
from django_q.conf import Conf as QConf

from durable_agents import holders, lifecycle, lockfiles, moments, outbound
from durable_agents.conf import cluster_of, config
from durable_agents.engine.steps import spent
from durable_agents.engine.watchdog import watch
from durable_agents.engine.worker import Engine, work_is_due
from durable_agents.llm import door
from durable_agents.logs import log_error

REAP_SECONDS = 2.0
FIRST_REAP_SECONDS = 2.0
"""How long a cluster's workers wait at most, before they are born, for what others left behind to be due again."""

_engines: dict[tuple[int, str], Engine] = {}


def work(cluster: str) -> None:
    """Work on what is due in the pools of ``cluster`` until a claim finds nothing. A further doorbell, when enough
    processes of the cluster sit in here already, returns at once."""
    with _seat(cluster) as number:
        if number is not None:
            _engine(cluster).work(seat=number)


def sweep() -> None:
    """The last resort: reap what dead workers held, settle what no worker knows, ring for what is due, and delete
    what nobody needs any more."""
    with contextlib.ExitStack() as stages:  # the last one first; one that fails keeps none of the others from its work
        stages.callback(_ring_for_due)
        stages.callback(lifecycle.prune)
        stages.callback(lifecycle.settle_unknown_code)
        stages.callback(lifecycle.expire)
        stages.callback(lifecycle.reap, holders.is_gone, spent)


def _ring_for_due() -> None:
    for cluster in sorted({cluster_of(pool) for pool in config().pools}):
        if work_is_due(cluster):
            outbound.ring_cluster(cluster)


def reap_first() -> None:
    """Before a cluster's workers are born: reap what gone processes held, so that they find it due. In a process of
    its own, since nothing that a database, a queue or a callback opens may be left when the workers fork."""
    connections.close_all()  # as django-q2 does before it forks: a connection cannot be shared
    reaper = multiprocessing.get_context("fork").Process(
        target=_reap_once, name="durable-agents-first-reaper", daemon=True
    )
    reaper.start()
    reaper.join(FIRST_REAP_SECONDS)


def _reap_once() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        lifecycle.reap(holders.is_gone, spent)
    except Exception:
        log_error("reaping failed", action="reap")


def on_spawn() -> None:
    """A django-q2 worker was born: look after the dead from a thread beside it, and load what is slow to load."""
    try:
        lifecycle.ensure_pools()
        outbound.schedule_sweep()
    except DatabaseError:
        log_error("the database is not ready: are all migrations applied?", action="spawn")
        connections.close_all()
    moments.run_through(moments.in_own_thread)
    threading.Thread(target=_look_after, args=(os.getppid(),), daemon=True, name="durable-agents-reaper").start()
    door().prepare()


def _engine(cluster: str) -> Engine:
    """This process's engine; a forked child does not use its parent's."""
    key = (os.getpid(), cluster)
    if key not in _engines:
        _engines[key] = Engine(cluster)
        watch(_engines[key])
    return _engines[key]


@contextlib.contextmanager
def _seat(cluster: str) -> Iterator[int | None]:
    """Number of one of the seats of a cluster in ``work``; the kernel frees it when its holder dies."""
    seats = config().processes or max(1, QConf.WORKERS - 1)
    for number in range(seats):
        descriptor = _lock_file(f"seat-{cluster}-{os.getppid()}-{number}")
        if descriptor is not None:
            try:
                yield number
            finally:
                os.close(descriptor)
            return
    yield None


def _lock_file(name: str) -> int | None:
    """An open, locked file, or None where another process holds it."""
    descriptor = lockfiles.open_lock(name)
    if lockfiles.take(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _look_after(parent: int) -> None:
    """Every two seconds reap what gone processes of this machine held, and ring for it. One process of a cluster
    does it; the others wait for its death. An idle worker whose cluster is gone ends itself."""
    descriptor = None
    while True:
        if os.getppid() != parent and not _is_working():
            os._exit(0)
        try:
            descriptor = descriptor or _lock_file(f"reaper-{parent}")
            if descriptor is not None:
                _reap_and_ring()
        except Exception:
            log_error("reaping failed", action="reap")
            connections.close_all()
        time.sleep(REAP_SECONDS)


def _reap_and_ring() -> None:
    lifecycle.reap(holders.is_gone, spent)
    lifecycle.expire()
    if not _is_working() and work_is_due(QConf.CLUSTER_NAME):
        outbound.ring_cluster(QConf.CLUSTER_NAME)


def _is_working() -> bool:
    return any(engine.is_working for engine in _engines.values())
