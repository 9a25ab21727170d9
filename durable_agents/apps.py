"""The Django app: discovers the project's agents and installs hooks into django-q2."""

from __future__ import annotations

import gc
import sys

from django.apps import AppConfig, apps
from django.db import connections
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class DurableAgentsConfig(AppConfig):
    """AppConfig of ``durable_agents``."""

    name = "durable_agents"
    label = "durable_agents"
    verbose_name = _("Durable agents")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from durable_agents import checks  # noqa: F401, PLC0415 - registers the system checks

        autodiscover_modules("agents")
        # If django-q2 is not installed, a system check reports that.
        if apps.is_installed("django_q"):
            from django_q.signals import post_spawn  # noqa: PLC0415 - its models need the app registry

            post_spawn.connect(_worker_spawned, dispatch_uid="durable_agents")
        post_migrate.connect(_migrated, sender=self, dispatch_uid="durable_agents")
        if sys.argv[1:2] == ["qcluster"]:
            from durable_agents import task_queue  # noqa: PLC0415 - only the cluster process

            task_queue.harden(_prepare_before_fork)


def _worker_spawned(**_: object) -> None:
    from durable_agents import engine  # noqa: PLC0415 - only workers run the engine

    engine.on_spawn()


def _migrated(using: str, **_: object) -> None:
    """If the necessary tables exist, create the rows of the pools and schedule the sweep. The tables may be missing:
    Django also sends this signal if only another app or another database was migrated, or if migrations were reversed.
    """
    from durable_agents import lifecycle, task_queue  # noqa: PLC0415 - needs the app registry

    tables = set(connections[using].introspection.table_names())
    if using != lifecycle.database() or not {"durable_agents_pool", "django_q_schedule"} <= tables:
        return
    lifecycle.ensure_pools()
    task_queue.schedule_sweep()


def _prepare_before_fork() -> None:
    """Load the model library before the workers fork, so that they share its memory and start quickly. After that,
    recover the rows that dead workers hold.

    Do nothing on systems other than Linux, because a fork would not be safe there after loading. The parent must not
    start any thread, because a forked child has none of its parent's threads.
    """
    if sys.platform != "linux":
        return
    from durable_agents import engine  # noqa: PLC0415 - only the cluster process
    from durable_agents.llm import door  # noqa: PLC0415 - as above

    door().prepare()
    gc.collect()
    # Without this call, the garbage collector of a child would write to all shared memory pages, and so copy them.
    gc.freeze()
    engine.reap_first()
