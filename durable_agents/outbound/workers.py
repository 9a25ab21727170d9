"""Doorbells to workers: django-q2 tasks that say "there may be work" and name a cluster, nothing else."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from django.db import transaction
from django.utils import timezone

from durable_agents.conf import cluster_of, default_cluster
from durable_agents.logs import log

WORK = "durable_agents.engine.work"
SWEEP = "durable_agents.engine.sweep"
SOCKET_TIMEOUT_SECONDS = 1
SCHEDULE = "durable_agents sweep"

_answered_here: dict[str, Callable[[], None]] = {}


def answer_doorbells_here(cluster: str, wake: Callable[[], None] | None) -> None:
    """While a worker of ``cluster`` sits in ``work``, its own process wakes it without the queue."""
    if wake is None:
        _answered_here.pop(cluster, None)
    else:
        _answered_here[cluster] = wake


def ring_workers(pools: Iterable[str], *, using: str) -> None:
    """After commit: tell the clusters that serve these pools that there may be work."""
    for cluster in sorted({cluster_of(pool) for pool in pools}):
        _ring_after_commit(cluster, using=using)


def _ring_after_commit(cluster: str, *, using: str) -> None:
    # Not a partial: Django names a robust callback that failed in its log, and a partial has no name.
    transaction.on_commit(lambda: _ring(cluster), using=using, robust=True)


def _ring(cluster: str) -> None:
    wake = _answered_here.get(cluster)
    if wake is not None:
        wake()
    else:
        ring_cluster(cluster)


def ring_cluster(cluster: str) -> None:
    """Put a doorbell into the cluster's queue, now. Never raises."""
    from django_q.tasks import async_task  # noqa: PLC0415 - django-q2 reads its settings at import

    options: dict[str, Any] = {"cluster": cluster, "save": False, "ack_failure": True, "timeout": -1, "sync": False}
    try:
        broker = _broker(cluster, os.getpid())
        if not _still_rings(broker):
            async_task(WORK, cluster, q_options=options | {"broker": broker})
    except Exception as error:
        message = "workers were not told: the broker does not answer"
        log(logging.WARNING, message, action="ring_workers", cluster=cluster, problem=type(error).__name__)


@cache
def _broker(cluster: str, pid: int) -> Any:
    """One broker a process and cluster, which gives up after a second where it talks over a socket."""
    from django_q.brokers import get_broker  # noqa: PLC0415 - as above
    from django_q.brokers.orm import ORM  # noqa: PLC0415

    broker: Any = get_broker(cluster)
    if isinstance(broker, ORM):
        return _TableBroker(broker.list_key)
    pool = getattr(broker.connection, "connection_pool", None)
    if pool is not None:
        pool.connection_kwargs.update(
            socket_timeout=SOCKET_TIMEOUT_SECONDS, socket_connect_timeout=SOCKET_TIMEOUT_SECONDS
        )
    return broker


class _TableBroker:
    """Puts tasks into django-q2's table on the connection at hand; its own broker closes that one each time."""

    def __init__(self, list_key: str) -> None:
        self.list_key = list_key
        self.last: int | None = None

    @property
    def _rows(self) -> Any:
        from django_q.conf import Conf  # noqa: PLC0415 - as above
        from django_q.models import OrmQ  # noqa: PLC0415

        return OrmQ.objects.using(Conf.ORM)

    def enqueue(self, payload: str) -> int:
        """Store a task, due now; returns its key."""
        row = self._rows.create(key=self.list_key, payload=payload, lock=timezone.now())
        self.last = row.pk
        return int(row.pk)

    def still_rings(self) -> bool:
        """Whether the last doorbell of this process has not been taken yet: whoever takes it will find everything."""
        return self.last is not None and self._rows.filter(pk=self.last, lock__lte=timezone.now()).exists()


def _still_rings(broker: Any) -> bool:
    return isinstance(broker, _TableBroker) and broker.still_rings()


def schedule_sweep() -> None:
    """Make sure that django-q2 runs the sweep every minute, on the cluster that serves agents."""
    from django_q.models import Schedule  # noqa: PLC0415 - needs the app registry

    cluster = cluster_of("agents")
    wanted: dict[str, Any] = {
        "func": SWEEP,
        "schedule_type": Schedule.MINUTES,
        "minutes": 1,
        "cluster": None if cluster == default_cluster() else cluster,
        "kwargs": "q_options={'save': False, 'ack_failure': True}",
    }
    known = Schedule.objects.filter(name=SCHEDULE).order_by("pk")
    first = known.first()
    if first is None:
        Schedule.objects.create(name=SCHEDULE, **wanted)
        first = known[0]
    Schedule.objects.filter(name=SCHEDULE).exclude(pk=first.pk).delete()  # two workers were born at once
    if first.cluster != wanted["cluster"]:
        Schedule.objects.filter(pk=first.pk).update(**wanted)
