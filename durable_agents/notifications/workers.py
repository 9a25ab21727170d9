"""Notify workers that there may be work, with django-q2 tasks that contain only the name of a cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import cache
from typing import Any

from django.db import transaction
from django.utils import timezone

from durable_agents.conf import cluster_of
from durable_agents.database_connections import discard_after
from durable_agents.logs import log
from durable_agents.notifications.worker_sender import WorkerSender

WORK = "durable_agents.engine.work"
SOCKET_TIMEOUT_SECONDS = 1
CLOCKS_APART = timedelta(days=365)

_answered_here: dict[str, Callable[[], None]] = {}


def receive_notifications_here(cluster: str, wake: Callable[[], None] | None) -> None:
    """From now on, notify ``cluster`` by calling ``wake`` in this process instead of using the queue. If ``wake`` is
    None, use the queue again.
    """
    if wake is None:
        _answered_here.pop(cluster, None)
    else:
        _answered_here[cluster] = wake


def notify_workers(pools: Iterable[str], *, using: str) -> None:
    """After the commit, tell the clusters of these pools that there may be work."""
    for cluster in sorted({cluster_of(pool) for pool in pools}):
        # Do not use ``functools.partial``. Django logs the name of a robust callback that fails, and a partial has no
        # name.
        def notify(cluster: str = cluster) -> None:
            _notify(cluster)

        transaction.on_commit(notify, using=using, robust=True)


def _notify(cluster: str) -> None:
    wake = _answered_here.get(cluster)
    if wake is not None:
        wake()
    else:
        notify_cluster(cluster)


def notify_cluster(cluster: str) -> bool:
    """Put a notification into the cluster's queue. Return whether the queue contains a notification now. Never raises.

    If the broker is reached over a socket:

    - This function can take a second.
    - If the broker fails, the notification is sent later. Until the broker has recovered, further calls return
      immediately.
    """
    from django_q.conf import Conf  # noqa: PLC0415 - django-q2 reads its settings at import

    # The queue of django-q2's ORM broker is a database table. All other brokers are reached over a socket.
    is_table = bool(Conf.ORM) and not (Conf.BROKER_CLASS or Conf.IRON_MQ or isinstance(Conf.SQS, dict))
    if not is_table:
        return _worker_sender.tell(cluster)
    try:
        _enqueue(cluster)
    except Exception as error:
        discard_after(error)
        message = "workers were not notified: the broker does not answer"
        log(logging.WARNING, message, action="ring_workers", cluster=cluster, problem=type(error).__name__)
        return False
    return True


def _enqueue(cluster: str) -> None:
    from django_q.tasks import async_task  # noqa: PLC0415 - as above

    options: dict[str, Any] = {"cluster": cluster, "save": False, "ack_failure": True, "timeout": -1, "sync": False}
    broker = _broker(cluster, os.getpid())
    # If the last notification is still in the queue, do not add another. The worker that receives it will find the new
    # rows as well.
    if not (isinstance(broker, _TableBroker) and broker.is_still_queued()):
        async_task(WORK, cluster, q_options=options | {"broker": broker})


_worker_sender = WorkerSender(_enqueue)


os.register_at_fork(after_in_child=_worker_sender.reset)


@cache
def _broker(cluster: str, pid: int) -> Any:
    """Return the broker of a cluster, with short timeouts if the broker is reached over a socket.

    ``pid`` is the id of this process. It is part of the cache key, so a forked child gets brokers of its own.
    """
    from django_q.brokers import get_broker  # noqa: PLC0415 - as above
    from django_q.brokers.orm import ORM  # noqa: PLC0415

    broker: Any = get_broker(cluster)
    if isinstance(broker, ORM):
        return _TableBroker(broker.list_key)
    pool = getattr(broker.connection, "connection_pool", None)
    if pool is not None:
        pool.connection_kwargs.update(
            socket_timeout=SOCKET_TIMEOUT_SECONDS,
            socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
            retry=None,  # by default, redis-py would try ten times
        )
    return broker


class _TableBroker:
    """A broker that puts tasks into django-q2's table over the current database connection. django-q2's own broker
    would close the connection on every call.
    """

    def __init__(self, list_key: str) -> None:
        self.list_key = list_key
        self.last: int | None = None
        # Workers skip tasks with a lock time in the future. For a worker with a slow clock, even the current time is in
        # the future. Therefore, use a lock time far in the past.
        self.lock = timezone.now() - CLOCKS_APART

    @property
    def _rows(self) -> Any:
        from django_q.conf import Conf  # noqa: PLC0415 - as above
        from django_q.models import OrmQ  # noqa: PLC0415

        return OrmQ.objects.using(Conf.ORM)

    def enqueue(self, payload: str) -> int:
        """Store a task that is due immediately. Return the primary key of its row."""
        row = self._rows.create(key=self.list_key, payload=payload, lock=self.lock)
        self.last = row.pk
        return int(row.pk)

    def is_still_queued(self) -> bool:
        """Return whether the last notification of this process is still in the queue."""
        return self.last is not None and self._rows.filter(pk=self.last, lock=self.lock).exists()
