"""Inspect django-q2 and the channel layer for ``agents_doctor``, without changing anything."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from durable_agents.conf import cluster_of, default_cluster
from durable_agents.notifications.clients import close_layer, layer_to_receive_from
from durable_agents.notifications.workers import SOCKET_TIMEOUT_SECONDS
from durable_agents.task_queue.schedule import SCHEDULE, SWEEP

LATE_SECONDS = 180.0
"""The sweep counts as late if it is overdue for more than this many seconds. It is scheduled every minute, and
django-q2 checks its schedules about every thirty seconds.
"""


@dataclass(frozen=True, kw_only=True)
class SweepFacts:
    """The state of the sweep's schedule."""

    has_run: bool
    late_by: timedelta
    """How long ago the sweep should have run; zero if it is not due yet."""
    cluster_is_right: bool
    is_switched_off: bool

    @property
    def is_late(self) -> bool:
        """Whether the sweep is so late that no cluster seems to run it."""
        return self.late_by > timedelta(seconds=LATE_SECONDS)


def queue_size(cluster: str) -> int:
    """Return the number of waiting tasks in the queue of a cluster. Raises the errors of the broker's client
    library.
    """
    broker = _broker(cluster)
    broker.ping()
    return int(broker.queue_size())


def late_queues(now: datetime | None = None) -> list[str]:
    """Return the names of the queues that no cluster seems to serve, sorted by name.

    A queue is included if one of its tasks has waited for more than ``LATE_SECONDS``, or if a schedule of its cluster
    is overdue by more than ``LATE_SECONDS``. A queue is left out if one of its tasks is running.

    Waiting tasks are found only with the ORM broker, because other brokers do not show the age of a task.
    """
    from django_q.conf import Conf  # noqa: PLC0415 - django-q2 reads its settings at import
    from django_q.models import OrmQ, Schedule  # noqa: PLC0415 - needs the app registry

    now = now or timezone.now()
    late = now - timedelta(seconds=LATE_SECONDS)
    schedules = Schedule.objects.filter(next_run__lt=late).exclude(repeats=0).exclude(name=SCHEDULE)
    queues = {cluster or default_cluster() for cluster in schedules.values_list("cluster", flat=True)}
    if Conf.ORM:
        tasks = OrmQ.objects.using(Conf.ORM)
        # A task whose ``lock`` is in the future is running: a worker has taken it, and has set its ``lock``.
        running = tasks.filter(lock__gt=now)
        queues |= set(tasks.filter(lock__lt=late).values_list("key", flat=True))
        queues -= set(running.values_list("key", flat=True))
    return sorted(queues)


def clusters_seen() -> int:
    """Return the number of running clusters that django-q2 knows of. django-q2 uses the cache for this. If processes do
    not share a cache, the number is zero.
    """
    from django_q.status import Stat  # noqa: PLC0415 - django-q2 reads its settings at import

    return len(Stat.get_all(_broker(default_cluster())))


def sweep_facts(now: datetime | None = None) -> SweepFacts | None:
    """Return the state of the sweep's schedule, or None if the sweep is not scheduled."""
    from django_q.models import Schedule  # noqa: PLC0415 - needs the app registry

    row = Schedule.objects.filter(name=SCHEDULE, func=SWEEP).order_by("pk").first()
    if row is None:
        return None
    served_by = row.cluster or default_cluster()
    return SweepFacts(
        has_run=bool(row.task),
        late_by=max((now or timezone.now()) - row.next_run, timedelta()),
        cluster_is_right=served_by == cluster_of("agents"),
        is_switched_off=row.repeats == 0,
    )


async def layer_round_trip(seconds: float) -> None:
    """Send a message through the channel layer and wait until it arrives. Raises TimeoutError after ``seconds``, and
    the errors of the layer.
    """
    layer = layer_to_receive_from()
    sent = {"type": "durable_agents.doctor"}
    try:
        async with asyncio.timeout(seconds):
            channel = await layer.new_channel()
            await layer.send(channel, sent)
            await layer.receive(channel)
    finally:
        await close_layer(layer)


def _broker(cluster: str) -> Any:
    """Return django-q2's broker for a cluster. A broker that is reached over a socket gets short timeouts."""
    from django_q.brokers import get_broker  # noqa: PLC0415 - django-q2 reads its settings at import

    broker: Any = get_broker(cluster)
    pool = getattr(broker.connection, "connection_pool", None)
    if pool is not None:
        hurry = {"socket_timeout": SOCKET_TIMEOUT_SECONDS, "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS}
        pool.connection_kwargs.update(hurry, retry=None)
    return broker
