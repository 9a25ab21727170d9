"""The Django app: import the project's agents, and connect to django-q2."""

from __future__ import annotations

import gc
import sys

from django.apps import AppConfig, apps
from django.db import connections
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class DurableAgentsConfig(AppConfig):
    name = "durable_agents"
    label = "durable_agents"
    verbose_name = _("Durable agents")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from durable_agents import checks, notifications  # noqa: F401, PLC0415 - registers the system checks

        autodiscover_modules("agents")
        notifications.connect_signals()
        # Without django-q2, a system check reports an error.
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
    """Create the rows of the pools, and schedule the periodic clean-up.

    Do nothing if the tables are missing: Django also sends ``post_migrate`` when only another app or database was
    migrated, or when migrations were reversed.
    """
    from durable_agents import lifecycle, task_queue  # noqa: PLC0415 - needs the app registry

    tables = set(connections[using].introspection.table_names())
    if using != lifecycle.database() or not {"durable_agents_pool", "django_q_schedule"} <= tables:
        return
    lifecycle.ensure_pools()
    task_queue.schedule_sweep()


def _prepare_before_fork() -> None:
    """Load the model library before the workers fork. The workers then share the library's memory and start fast.
    Afterwards, recover the rows of dead workers.

    Forking after this import is safe only on Linux. On other systems, do nothing. Do not start OS threads here,
    because a forked child does not inherit them.
    """
    if sys.platform != "linux":
        return
    from durable_agents import engine  # noqa: PLC0415 - only the cluster process
    from durable_agents.llm import door  # noqa: PLC0415 - as above

    door().prepare()
    gc.collect()
    # Exclude the existing objects from garbage collection. Otherwise, the collector of each forked child would write to
    # the shared memory pages, and the kernel would copy these pages.
    gc.freeze()
    engine.reap_first()
