"""System checks: what would not work, or not safely, said before it happens, each with what to do.

    durable_agents.E001   a key of DURABLE_AGENTS means nothing
    durable_agents.E002   the database is neither PostgreSQL nor SQLite
    durable_agents.E003   a pool's cluster does not exist
    durable_agents.E004   an agent or a tool uses a pool that is not configured
    durable_agents.E005   the policy cannot be imported
    durable_agents.W001   SQLite is not set up for many writers
    durable_agents.W002   django-q2 runs tasks in the process that asks for them
    durable_agents.W003   django-q2's scheduler is off, so nothing sweeps
    durable_agents.W004   on deployment: the channel layer does not leave its process
    durable_agents.W005   the Redis channel layer closes sockets that are silent for five seconds

They read settings and declarations only; no connection is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - its name in Django
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.module_loading import import_string

from durable_agents.agents import registry
from durable_agents.conf import Config, channel_layers, config, default_cluster, q_cluster, unknown_keys
from durable_agents.models import Thread
from durable_agents.outbound import layer_crosses_processes

SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}


@register()
def check_keys(**_: Any) -> list[CheckMessage]:
    """Every key of ``DURABLE_AGENTS`` is one of the documented ones."""
    known = [item.name.upper() for item in fields(Config)]
    return [
        Error(
            f"DURABLE_AGENTS has no key {key!r}.",
            hint=_did_you_mean(key, known),
            id="durable_agents.E001",
        )
        for key in unknown_keys()
    ]


def _did_you_mean(key: str, known: list[str]) -> str:
    close = get_close_matches(key.upper(), known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"The keys are: {', '.join(known)}."


@register()
def check_database(**_: Any) -> list[CheckMessage]:
    """The database of the threads keeps the constraints that everything rests on."""
    connection = connections[router.db_for_write(Thread)]
    if connection.vendor == "postgresql":
        return []
    if connection.vendor != "sqlite":
        return [
            Error(
                f"durable_agents does not run on {connection.display_name}: it skips the partial unique indexes that "
                "keep a thread from having two runs.",
                hint="Use PostgreSQL or SQLite, for the models of durable_agents through a database router.",
                id="durable_agents.E002",
            )
        ]
    return list(_sqlite_warnings(connection))


def _sqlite_warnings(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    missing = list(_missing_for_many_writers(connection.settings_dict.get("OPTIONS", {})))
    if missing:
        yield Warning(
            f"SQLite is not set up for several processes that write: {'; '.join(missing)}.",
            hint=f'Put this into DATABASES["{connection.alias}"]: "OPTIONS": {SQLITE_OPTIONS}',
            id="durable_agents.W001",
        )


def _missing_for_many_writers(options: dict[str, Any]) -> Iterator[str]:
    if str(options.get("transaction_mode", "")).upper() != "IMMEDIATE":
        yield "transactions are not IMMEDIATE, so one that turns to writing fails at once when another writes"
    if options.get("timeout", 5) < SQLITE_OPTIONS["timeout"]:
        yield f"a writer waits for less than {SQLITE_OPTIONS['timeout']} seconds for its turn"
    if "journal_mode=wal" not in str(options.get("init_command", "")).lower().replace(" ", ""):
        yield "the journal is not WAL, so readers wait for writers"


@register()
def check_pools(**_: Any) -> list[CheckMessage]:
    """Every pool is served by a cluster that exists, and every agent and tool runs in a pool."""
    pools, clusters = config().pools, _clusters()
    lost = [name for name, pool in pools.items() if pool.cluster is not None and pool.cluster not in clusters]
    used = {agent.pool for agent in registry.all()}
    used |= {agent.pool_of(tool_name) for agent in registry.all() for tool_name in agent.tools}
    return [
        *(
            Error(
                f"No django-q2 cluster is called {pools[name].cluster!r}, so nobody works in the pool {name!r}.",
                hint=f'The clusters are: {", ".join(sorted(clusters))}. Name more in Q_CLUSTER["ALT_CLUSTERS"].',
                id="durable_agents.E003",
            )
            for name in lost
        ),
        *(
            Error(
                f"There is no pool {name!r}, so what runs in it would wait for ever.",
                hint=f'Add it: DURABLE_AGENTS = {{"POOLS": {{"{name}": {{"limit": 10}}}}}}',
                id="durable_agents.E004",
            )
            for name in sorted(used - set(pools))
        ),
    ]


def _clusters() -> set[str]:
    """Names of the clusters that ``Q_CLUSTER`` declares."""
    return {default_cluster(), str(q_cluster().get("name", "default")), *q_cluster().get("ALT_CLUSTERS", {})}


@register()
def check_policy(**_: Any) -> list[CheckMessage]:
    """The policy, which every access asks, is there."""
    try:
        import_string(config().policy)
    except ImportError as error:
        hint = 'DURABLE_AGENTS["POLICY"] is the dotted path of a class, such as "myapp.policies.Policy".'
        return [Error(f"The policy cannot be imported: {error}", hint=hint, id="durable_agents.E005")]
    return []


@register()
def check_queue(**_: Any) -> list[CheckMessage]:
    """django-q2 has workers of its own, and a schedule that rings them when a doorbell was lost."""
    messages: list[CheckMessage] = []
    if q_cluster().get("sync"):
        text = "Q_CLUSTER has sync on: model calls would be made inside web requests, and no request would return."
        hint = 'Remove "sync" from Q_CLUSTER and run "manage.py qcluster".'
        messages.append(Warning(text, hint=hint, id="durable_agents.W002"))
    if not q_cluster().get("scheduler", True):
        text = "Q_CLUSTER has its scheduler off: a thread whose worker died may wait until somebody looks at it."
        hint = 'Remove "scheduler" from Q_CLUSTER, or run "manage.py agents_sweep" every minute.'
        messages.append(Warning(text, hint=hint, id="durable_agents.W003"))
    return messages


@register(deploy=True)
def check_channel_layer(**_: Any) -> list[CheckMessage]:
    """In production, workers reach browsers without being asked."""
    if layer_crosses_processes():
        return []
    text = "The channel layer does not leave its process: every web process polls the database for its browsers."
    hint = 'Install the extra "redis" and use channels_redis.core.RedisChannelLayer in CHANNEL_LAYERS.'
    return [Warning(text, hint=hint, id="durable_agents.W004")]


@register()
def check_redis_layer(**_: Any) -> list[CheckMessage]:
    """The Redis channel layer waits five seconds for a message at a time; redis 8 gives up reading after as many, and
    the layer then breaks off every websocket that had nothing to say."""
    if not _redis_gives_up():
        return []
    text = "The Redis channel layer breaks off websockets that are silent for five seconds, with this version of redis."
    hint = 'Write its hosts as [{"address": "redis://…", "socket_timeout": None}] in CHANNEL_LAYERS.'
    return [
        Warning(text, hint=hint, id="durable_agents.W005")
        for layer in channel_layers().values()
        if str(layer.get("BACKEND", "")).startswith("channels_redis.") and not _waits_for_ever(layer)
    ]


def _redis_gives_up() -> bool:
    try:
        return int(version("redis").partition(".")[0]) >= 8
    except (PackageNotFoundError, ValueError):
        return False


def _waits_for_ever(layer: Any) -> bool:
    hosts = layer.get("CONFIG", {}).get("hosts", ["localhost"])
    return all(isinstance(host, dict) and "socket_timeout" in host for host in hosts)
