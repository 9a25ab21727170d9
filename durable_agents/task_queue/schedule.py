"""Schedule the sweep in django-q2. The sweep is a periodic task that recovers lost rows and deletes old data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import Error
from django.utils import timezone

from durable_agents.conf import cluster_of, default_cluster

SWEEP = "durable_agents.engine.sweep"
SCHEDULE = "durable_agents sweep"


def schedule_sweep() -> None:
    """Make sure that django-q2 runs the sweep every minute, on the cluster that serves the pool ``agents``."""
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
    Schedule.objects.filter(name=SCHEDULE).exclude(pk=first.pk).delete()  # two processes might each have added a row
    if first.cluster != wanted["cluster"]:
        Schedule.objects.filter(pk=first.pk).update(**wanted)


def check_schedules_at_start(scheduler: Callable[..., None], broker: object) -> None:
    """Run the sweep, and all other due schedules, as soon as a cluster starts.

    Without this function, django-q2 would first check its schedules half a minute after the start. Until then,
    ``agents_doctor`` would not see the cluster, because it recognises a running cluster by its sweep.

    If several sweeps were missed, only one sweep runs. Without this function, django-q2 would run all missed sweeps,
    one every half minute. After a long pause, the sweep would stay overdue for a long time.
    """
    from django_q.conf import Conf  # noqa: PLC0415 - django-q2 reads its settings at import
    from django_q.models import Schedule  # noqa: PLC0415 - needs the app registry

    if not Conf.SCHEDULER:
        return
    now = timezone.now()
    with suppress(Error):
        Schedule.objects.filter(name=SCHEDULE, next_run__lt=now).update(next_run=now)
    scheduler(broker=broker)
