"""System checks: what would not work, or not safely, said before it happens, each with what to do.

    durable_agents.E001   a key of DURABLE_AGENTS means nothing
    durable_agents.E002   the database is neither PostgreSQL nor SQLite
    durable_agents.E003   a pool's cluster does not exist
    durable_agents.E004   an agent or a tool uses a pool that is not configured
    durable_agents.E005   the policy cannot be imported, or lacks a method
    durable_agents.E006   a key of DURABLE_AGENTS has a value that cannot be meant
    durable_agents.E007   django-q2's broker cannot work
    durable_agents.E008   an app that this one stands on is not installed
    durable_agents.W001   SQLite is not set up for many writers
    durable_agents.W002   django-q2 runs tasks in the process that asks for them
    durable_agents.W003   django-q2's scheduler is off, so nothing sweeps
    durable_agents.W004   on deployment: the channel layer does not leave its process
    durable_agents.W005   the Redis channel layer closes sockets that are silent for five seconds
    durable_agents.W006   there is no ASGI_APPLICATION, so nothing can stream to browsers
    durable_agents.W007   on deployment: there are public agents, and no URL by which to reach them
    durable_agents.W008   django-q2 is not configured
    durable_agents.W009   THROTTLES are counted in a cache that does not leave its process
    durable_agents.W010   on deployment: uploaded files would lie in whatever directory a process starts in

They read settings and declarations only; no connection is opened. Where settings are to be changed, the hint ends in
lines that are indented by four spaces, to be pasted at the end of the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - its name in Django
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.urls import NoReverseMatch, reverse
from django.utils.module_loading import import_string

from durable_agents import files
from durable_agents.agents import registry
from durable_agents.conf import (
    Config,
    asgi_application,
    channel_layers,
    config,
    default_cache,
    default_cluster,
    given_settings,
    has_caches,
    project_package,
    q_cluster,
    unknown_keys,
)
from durable_agents.limits import LIMITS, rate_of
from durable_agents.models import Thread
from durable_agents.outbound import layer_crosses_processes

SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}
APPS = ("channels", "rest_framework", "django_q")
POLICY_METHODS = ("filter", "allows", "owner_and_scope", "context")
LAYER: dict[str, Any] = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [{"address": "redis://127.0.0.1:6379/0", "socket_timeout": None}]},
    }
}
CACHE = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:6379/1"}


def _paste(sentence: str, *lines: str) -> str:
    """A hint that ends in lines to be pasted at the end of the settings."""
    return "\n".join([f"{sentence} At the end of the settings:", *(f"    {line}" for line in lines)])


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


Rule = tuple[Callable[[Any], bool], str]


def _number(least: float, *, optional: bool = False, whole: bool = True) -> Rule:
    """A number that is not below ``least``; a bool is none."""
    kind, word = (int, "a whole number") if whole else (int | float, "a number")

    def fits(value: Any) -> bool:
        return (optional and value is None) or (
            isinstance(value, kind) and not isinstance(value, bool) and value >= least
        )

    return fits, f"{word}, {least:g} or more{', or None' if optional else ''}"


def _one_of(*words: str) -> Rule:
    return lambda value: value in words, " or ".join(map(repr, words))


def _pools_fit(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and _pool_fits(pool) for name, pool in value.items()
    )


def _pool_fits(pool: Any) -> bool:
    if not isinstance(pool, Mapping) or set(pool) - {"cluster", "limit"}:
        return False
    cluster, limit = pool.get("cluster"), pool.get("limit", 1)
    return (cluster is None or isinstance(cluster, str)) and _number(1)[0](limit)


def _throttles_fit(value: Any) -> bool:
    return value is None or (
        isinstance(value, Mapping) and set(value) <= set(LIMITS) and all(map(_is_rate, value.values()))
    )


def _is_rate(text: Any) -> bool:
    try:
        rate_of(text)
    except ValueError:
        return False
    return True


_PATH: Rule = (lambda value: isinstance(value, str), "the dotted path of a class, such as 'shop.Door'")
_SECONDS = _number(0, whole=False)
_AT_LEAST_ONE = _number(1)
RULES: dict[str, Rule] = {
    "POLICY": _PATH,
    "DEFAULT_AGENT": (lambda value: value is None or isinstance(value, str), "the name of an agent, or None"),
    "POOLS": (_pools_fit, 'a dict such as {"agents": {"cluster": None, "limit": 100}}, limits being 1 or more'),
    "PROCESSES": _number(1, optional=True),
    "STREAMS_PER_PROCESS": _AT_LEAST_ONE,
    "TOOL_THREADS": _AT_LEAST_ONE,
    "WORK_SECONDS": _number(1, whole=False),
    "LINGER_SECONDS": _SECONDS,
    "LEASE_SECONDS": _number(2, whole=False),  # heartbeats come when a third is used, and a loop turns twice a second
    "DRAIN_SECONDS": _SECONDS,
    "CRASH_LIMIT": _AT_LEAST_ONE,
    "UNKNOWN_CODE_GRACE_SECONDS": _SECONDS,
    "ATOMIC_WARN_SECONDS": _SECONDS,
    "FLUSH_MS": _AT_LEAST_ONE,
    "MAX_RUNNING_PER_OWNER": _number(1, optional=True),
    "THROTTLES": (_throttles_fit, 'a dict of rates such as {"requests": "600/min", "sends": "30/min"}, or None'),
    "MAX_BODY_BYTES": _AT_LEAST_ONE,
    "MAX_CHAT_BODY_BYTES": _AT_LEAST_ONE,
    "MAX_TEXT_CHARS": _AT_LEAST_ONE,
    "MAX_TOOL_RESULT_BYTES": _AT_LEAST_ONE,
    "MAX_ATTACHMENT_BYTES": _AT_LEAST_ONE,
    "MAX_FRAME_BYTES": _AT_LEAST_ONE,
    "MAX_JSON_DEPTH": _AT_LEAST_ONE,
    "USAGE_ON_DELETE": _one_of("keep", "drop"),
    "MODEL_DOOR": _PATH,
    "AI_SDK_DIALECT": _one_of("6", "7"),
}
"""For each key: what its value must fulfil, and the same in words."""


@register()
def check_values(**_: Any) -> list[CheckMessage]:
    """Every value of ``DURABLE_AGENTS`` can be meant; the line to paste has the default."""
    given = given_settings()
    if not isinstance(given, Mapping | None):
        text = f"DURABLE_AGENTS is a {type(given).__name__}, not a dict."
        return [Error(text, hint=_paste("Every key has a default.", "DURABLE_AGENTS = {}"), id="durable_agents.E006")]
    return [
        Error(
            f"DURABLE_AGENTS[{key!r}] is {(given or {})[key]!r}.",
            hint=_paste(f"It is {words}. Its default:", f"DURABLE_AGENTS[{key!r}] = {_default(key)!r}"),
            id="durable_agents.E006",
        )
        for key, words in _wrong_values()
    ]


def _wrong_values() -> Iterator[tuple[str, str]]:
    """Keys whose values cannot be meant, and what would be."""
    given = given_settings()
    for key, (fits, words) in RULES.items():
        if isinstance(given, Mapping) and key in given and not fits(given[key]):
            yield key, words


def _default(key: str) -> Any:
    if key == "POOLS":
        return {}
    return getattr(Config(), key.lower())


def _is_readable() -> bool:
    """Whether the settings can be read at all; else only ``check_values`` has something to say of them."""
    return not any(key in {"POLICY", "POOLS"} for key, _ in _wrong_values())


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
            hint=_paste(
                "Let writers take turns.",
                f'DATABASES["{connection.alias}"]["OPTIONS"] = {_for_many_writers(connection)}',
            ),
            id="durable_agents.W001",
        )


def _for_many_writers(connection: BaseDatabaseWrapper) -> dict[str, Any]:
    """The options that the project has, with ours."""
    options: dict[str, Any] = connection.settings_dict.get("OPTIONS", {})
    given = str(options.get("init_command", "")).strip().rstrip(";")
    ours = str(SQLITE_OPTIONS["init_command"])
    together = f"{given}; {ours}" if given and "journal_mode" not in given.lower() else ours
    return {**options, **SQLITE_OPTIONS, "init_command": together}


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
    if not _is_readable():
        return []
    pools, clusters = config().pools, _clusters()
    lost = sorted({pool.cluster for pool in pools.values() if pool.cluster and pool.cluster not in clusters})
    used = {agent.pool for agent in registry.all()}
    used |= {agent.pool_of(tool_name) for agent in registry.all() for tool_name in agent.tools}
    return [
        *(_lost_cluster(cluster, sorted(clusters)) for cluster in lost),
        *(
            Error(
                f"There is no pool {name!r}, so what runs in it would wait for ever.",
                hint=_paste(
                    f"The pools are: {', '.join(sorted(pools))}.",
                    f'DURABLE_AGENTS.setdefault("POOLS", {{}})["{name}"] = {{"limit": 10}}',
                ),
                id="durable_agents.E004",
            )
            for name in sorted(used - set(pools))
        ),
    ]


def _lost_cluster(cluster: str, clusters: list[str]) -> CheckMessage:
    pools = [name for name, pool in config().pools.items() if pool.cluster == cluster]
    return Error(
        f"No django-q2 cluster is called {cluster!r}, so nobody works in the pool {', '.join(map(repr, pools))}.",
        hint=_paste(
            f"The clusters are: {', '.join(clusters)}. For one more, which Q_CLUSTER_NAME={cluster} before "
            "`manage.py qcluster` starts:",
            f'Q_CLUSTER.setdefault("ALT_CLUSTERS", {{}})["{cluster}"] = {{"timeout": 300, "retry": 360}}',
        ),
        id="durable_agents.E003",
    )


def _clusters() -> set[str]:
    """Names of the clusters that ``Q_CLUSTER`` declares."""
    return {default_cluster(), str(q_cluster().get("name", "default")), *q_cluster().get("ALT_CLUSTERS", {})}


@register()
def check_policy(**_: Any) -> list[CheckMessage]:
    """The policy, which every access asks, is there and whole."""
    if not _is_readable():
        return []
    hint = _paste("Until it is there:", 'DURABLE_AGENTS["POLICY"] = "durable_agents.policies.OwnerPolicy"')
    try:
        policy = import_string(config().policy)
    except ImportError as error:
        return [Error(f"The policy cannot be imported: {error}", hint=hint, id="durable_agents.E005")]
    missing = [name for name in POLICY_METHODS if not callable(getattr(policy, name, None))]
    if not missing:
        return []
    text = f"The policy {config().policy} has no {', '.join(missing)}."
    hint = f"Derive it from durable_agents.policies.OwnerPolicy, which has them all. {hint}"
    return [Error(text, hint=hint, id="durable_agents.E005")]


@register()
def check_queue(**_: Any) -> list[CheckMessage]:
    """django-q2 has workers of its own, and a schedule that rings them when a doorbell was lost."""
    if not q_cluster():
        wanted = {"name": project_package(), "orm": "default", "workers": 4, "timeout": 300, "retry": 360}
        text = "Q_CLUSTER is not set: django-q2 looks for a Redis on this host."
        return [
            Warning(text, hint=_paste("To keep it in the database:", f"Q_CLUSTER = {wanted}"), id="durable_agents.W008")
        ]
    messages: list[CheckMessage] = list(_broken_broker(q_cluster()))
    if q_cluster().get("sync"):
        text = "Q_CLUSTER has sync on: model calls would be made inside web requests, and no request would return."
        hint = _paste(
            'Tests need no "sync": durable_agents.testing runs workers inside them.', 'Q_CLUSTER["sync"] = False'
        )
        messages.append(Warning(text, hint=hint, id="durable_agents.W002"))
    if not q_cluster().get("scheduler", True):
        text = "Q_CLUSTER has its scheduler off: a thread whose worker died may wait until somebody looks at it."
        hint = _paste('Or run "manage.py agents_sweep" every minute.', 'Q_CLUSTER["scheduler"] = True')
        messages.append(Warning(text, hint=hint, id="durable_agents.W003"))
    return messages


def _broken_broker(given: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """A broker that cannot work: a database that there is not, or a library that is not installed."""
    alias = given.get("orm")
    if alias and alias not in connections:
        yield Error(
            f"Q_CLUSTER keeps its queue in the database {alias!r}, which DATABASES does not have.",
            hint=_paste(f"The databases are: {', '.join(connections)}.", 'Q_CLUSTER["orm"] = "default"'),
            id="durable_agents.E007",
        )
    others = {"orm", "sqs", "iron_mq", "mongo", "broker_class"}
    if not any(given.get(name) for name in others) and not find_spec("redis"):
        yield Error(
            "Q_CLUSTER keeps its queue in Redis, and the package redis is not installed.",
            hint=_paste(
                "Install the extra: django-durable-agents[redis]. Or use the database.", 'Q_CLUSTER["orm"] = "default"'
            ),
            id="durable_agents.E007",
        )


@register()
def check_apps(**_: Any) -> list[CheckMessage]:
    """What this app stands on is installed."""
    missing = [name for name in APPS if not apps.is_installed(name)]
    if not missing:
        return []
    hint = _paste("Add what is missing.", f"INSTALLED_APPS = [*INSTALLED_APPS, {', '.join(map(repr, missing))}]")
    return [Error(f"INSTALLED_APPS lacks {', '.join(missing)}.", hint=hint, id="durable_agents.E008")]


@register()
def check_asgi(**_: Any) -> list[CheckMessage]:
    """What public agents say can be streamed to browsers."""
    if asgi_application() or not registry.public():
        return []
    text = "ASGI_APPLICATION is not set, so answers reach browsers only when they ask for them."
    line = f'ASGI_APPLICATION = "{project_package()}.asgi.application"'
    hint = _paste("docs/quickstart.md has the asgi.py that goes with it.", line)
    return [Warning(text, hint=hint, id="durable_agents.W006")]


@register(deploy=True)
def check_urls(**_: Any) -> list[CheckMessage]:
    """Public agents can be reached. On deployment, since it loads every view of the project."""
    public = ", ".join(agent.name for agent in registry.public())
    try:
        reverse("durable_agents:threads")
    except NoReverseMatch:
        line = 'urlpatterns += [path("agents/", include("durable_agents.urls"))]'
        hint = f"Leave out public=True, or put this at the end of {project_package()}/urls.py:\n    {line}"
        message = Warning(f"Public agents ({public}) have no URL.", hint=hint, id="durable_agents.W007")
        return [message] if public else []
    return []


@register(deploy=True)
def check_channel_layer(**_: Any) -> list[CheckMessage]:
    """In production, workers reach browsers without being asked."""
    if layer_crosses_processes():
        return []
    text = "The channel layer does not leave its process: every web process polls the database for its browsers."
    hint = _paste("Install the extra: django-durable-agents[redis].", f"CHANNEL_LAYERS = {LAYER}")
    return [Warning(text, hint=hint, id="durable_agents.W004")]


@register(deploy=True)
def check_files(**_: Any) -> list[CheckMessage]:
    """Warn where uploads go to the file system, and nothing says where."""
    if getattr(files.storage(), "base_location", None) != "":
        return []
    text = "Files that users upload are kept in whatever directory a process is started in."
    hint = _paste("Name one that all web and worker processes share.", 'MEDIA_ROOT = "/srv/mysite/media"')
    return [Warning(text, hint=hint, id="durable_agents.W010")]


@register()
def check_redis_layer(**_: Any) -> list[CheckMessage]:
    """The Redis channel layer waits five seconds for a message at a time; redis 8 gives up reading after as many, and
    the layer then breaks off every websocket that had nothing to say."""
    if not _redis_gives_up():
        return []
    hosts = LAYER["default"]["CONFIG"]["hosts"]
    text = "The Redis channel layer breaks off websockets that are silent for five seconds, with this version of redis."
    return [
        Warning(
            text,
            hint=_paste(
                "Give every host as a dict, with the address that it has now.",
                f'CHANNEL_LAYERS[{alias!r}].setdefault("CONFIG", {{}})["hosts"] = {hosts}',
            ),
            id="durable_agents.W005",
        )
        for alias, layer in channel_layers().items()
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


@register()
def check_cache(**_: Any) -> list[CheckMessage]:
    """Where there are throttles, all processes count in one place."""
    backend = default_cache()
    if not (given := given_settings()) or not isinstance(given, Mapping) or not given.get("THROTTLES"):
        return []
    if backend.rpartition(".")[2] not in {"LocMemCache", "DummyCache"}:
        return []
    text = f"THROTTLES are counted in the default cache, and {backend.rpartition('.')[2]} does not leave its process."
    sentence = "Each process would let in as many: use a cache that they share. This one needs the package redis."
    line = f'CACHES["default"] = {CACHE}' if has_caches() else f'CACHES = {{"default": {CACHE}}}'
    hint = _paste(sentence, line)
    return [Warning(text, hint=hint, id="durable_agents.W009")]
