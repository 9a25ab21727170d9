"""System checks: report settings and declarations that would fail or are unsafe, each with a hint on what to do.

    durable_agents.E001   a key of DURABLE_AGENTS is unknown
    durable_agents.E002   the database is neither PostgreSQL nor SQLite
    durable_agents.E003   a pool's cluster does not exist
    durable_agents.E004   an agent or a tool uses a pool that is not configured
    durable_agents.E005   the policy cannot be imported, or lacks a method
    durable_agents.E006   a key of DURABLE_AGENTS has an invalid value
    durable_agents.E007   django-q2's broker cannot work
    durable_agents.E008   a required app is not installed
    durable_agents.E012   the arguments of a tool have no schema
    durable_agents.W001   SQLite is not configured for several writers
    durable_agents.W002   django-q2 runs tasks in the process that enqueues them
    durable_agents.W003   django-q2's scheduler is off, so the periodic clean-up never runs
    durable_agents.W004   on deployment: the channel layer does not reach other processes
    durable_agents.W005   the Redis channel layer closes sockets that are silent for five seconds
    durable_agents.W006   there is no ASGI_APPLICATION, so nothing can stream to browsers
    durable_agents.W007   on deployment: there are public agents, but no URLs for them
    durable_agents.W008   django-q2 is not configured
    durable_agents.W009   THROTTLES are counted in a cache that processes do not share
    durable_agents.W010   on deployment: uploaded files are stored in the directory in which a process was started
    durable_agents.W012   Django's connection pool is too small for one worker
    durable_agents.W015   on deployment: THROTTLES count visitors by address, but the number of proxies is not set
    durable_agents.W016   a connection to Redis has no timeout, or the broker's timeout is too short
    durable_agents.W017   on deployment: ALLOWED_HOSTS or TRUSTED_ORIGINS lets pages of any site open websockets
    durable_agents.W018   on deployment: forms are accepted from an origin of the site, but websockets are refused
    durable_agents.W019   the API ignores the project's permission classes, and the project uses the default policy

The checks only read settings and declarations; they open no connection. If a setting has to change, the hint ends with
lines to paste at the end of the settings. Four spaces precede each of these lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from importlib.util import find_spec
from urllib.parse import urlsplit

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - its name in Django
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http.request import validate_host
from django.urls import NoReverseMatch, reverse
from django.utils.module_loading import import_string

from durable_agents import attachment_storage
from durable_agents.agents import registry
from durable_agents.conf import (
    Config,
    allowed_hosts,
    asgi_application,
    channel_layers,
    config,
    csrf_trusted_origins,
    default_cache,
    default_cluster,
    default_permissions,
    given_settings,
    has_caches,
    knows_scheme_from_proxy,
    number_of_proxies,
    project_package,
    q_cluster,
    unknown_keys,
)
from durable_agents.llm import DOORS
from durable_agents.models import Thread
from durable_agents.notifications import layer_crosses_processes
from durable_agents.task_queue.redis_servers import cache_servers, redis_servers
from durable_agents.throttles import LIMITS, rate_of
from durable_agents.websocket_origins import ANY

SQLITE_SECONDS = 20
SQLITE_INIT = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
SQLITE_OPTIONS = {"transaction_mode": "IMMEDIATE", "timeout": SQLITE_SECONDS, "init_command": SQLITE_INIT}
APPS = ("channels", "rest_framework", "django_q")
POLICY_METHODS = ("filter", "allows", "owner_and_scope", "context")
LAYER_HOSTS = [{"address": "redis://127.0.0.1:6379/0", "socket_timeout": 10, "socket_connect_timeout": 2}]
LAYER_BACKEND = "channels_redis.pubsub.RedisPubSubChannelLayer"
LAYER = {"default": {"BACKEND": LAYER_BACKEND, "CONFIG": {"hosts": LAYER_HOSTS, "prefix": "site"}}}
BROKER = "redis://127.0.0.1:6379/0?socket_timeout=10&socket_connect_timeout=2"
LAYER_WAIT_SECONDS = 5
BROKER_WAIT_SECONDS = 1
CACHE_OPTIONS = {"socket_timeout": 1, "socket_connect_timeout": 1}
CACHE = {
    "BACKEND": "django.core.cache.backends.redis.RedisCache",
    "LOCATION": "redis://127.0.0.1:6379/1",
    "OPTIONS": CACHE_OPTIONS,
}


def _paste(sentence: str, *lines: str) -> str:
    """Return a hint that ends with lines to paste into the settings."""
    return "\n".join([f"{sentence} At the end of the settings:", *(f"    {line}" for line in lines)])


@register()
def check_keys(**_: object) -> list[CheckMessage]:
    """Check that every key of ``DURABLE_AGENTS`` is a known setting."""
    known = [item.name.upper() for item in fields(Config)]
    messages: list[CheckMessage] = []
    for key in unknown_keys():
        close = get_close_matches(key.upper(), known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"The keys are: {', '.join(known)}."
        messages.append(Error(f"DURABLE_AGENTS has no key {key!r}.", hint=hint, id="durable_agents.E001"))
    return messages


Rule = tuple[Callable[[object], bool], str]


def _number(least: float, *, optional: bool = False, whole: bool = True) -> Rule:
    """Return a rule for numbers of at least ``least``. Booleans are refused."""
    word = "a whole number" if whole else "a number"

    def fits(value: object) -> bool:
        if value is None or isinstance(value, bool):
            return optional and value is None
        return isinstance(value, int | float) and not (whole and isinstance(value, float)) and value >= least

    return fits, f"{word}, {least:g} or more{', or None' if optional else ''}"


def _one_of(*words: str) -> Rule:
    return lambda value: value in words, " or ".join(map(repr, words))


def are_pools(value: object) -> bool:
    """Return whether a value is a valid ``POOLS`` setting: a dict from pool names to dicts. The inner dicts may have
    the keys ``cluster`` and ``limit``.
    """
    if not isinstance(value, Mapping):
        return False
    for name, pool in value.items():
        if not isinstance(name, str) or not isinstance(pool, Mapping) or set(pool) - {"cluster", "limit"}:
            return False
        if not isinstance(pool.get("cluster"), str | None) or not _number(1, optional=True)[0](pool.get("limit")):
            return False
    return True


def are_origins(value: object) -> bool:
    """Return whether a value is a valid ``TRUSTED_ORIGINS`` setting: a list of origins. Each has a scheme, or is
    ``"*"``.
    """
    return isinstance(value, list | tuple) and all(
        isinstance(origin, str) and (origin == ANY or re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin))
        for origin in value
    )


def are_throttles(value: object) -> bool:
    """Return whether a value is a valid ``THROTTLES`` setting: None, or a dict from known limits to valid rates."""
    if not isinstance(value, Mapping) or not set(value) <= set(LIMITS):
        return value is None
    try:
        for text in value.values():
            rate_of(text)
    except ValueError:
        return False
    return True


def are_keys(value: object) -> bool:
    """Return whether a value is a valid ``APPROVAL_KEYS`` setting: None, or a list of at least one key. Every key must
    be long enough.
    """
    if not isinstance(value, list | tuple) or not value:
        return value is None
    return all(isinstance(key, str) and len(key) >= MIN_KEY_CHARS for key in value)


_PATH: Rule = (lambda value: isinstance(value, str), "the dotted path of a class, such as 'shop.Door'")
_SECONDS = _number(0, whole=False)
_AT_LEAST_ONE = _number(1)
MIN_KEY_CHARS = 16
_SECRET = frozenset({"APPROVAL_KEYS"})
"""Keys of ``DURABLE_AGENTS`` whose values are not shown in messages."""


RULES: dict[str, Rule] = {
    "POLICY": _PATH,
    "DEFAULT_AGENT": (lambda value: value is None or isinstance(value, str), "the name of an agent, or None"),
    "POOLS": (are_pools, 'a dict such as {"agents": {"cluster": None, "limit": 100}}, limits 1 or more, or None'),
    "PROCESSES": _number(1, optional=True),
    "STREAMS_PER_PROCESS": _AT_LEAST_ONE,
    "TOOL_THREADS": _AT_LEAST_ONE,
    "WORK_SECONDS": _number(1, whole=False),
    "LINGER_SECONDS": _SECONDS,
    # Workers send three heartbeats per lease, and look for lost leases twice a second. A shorter lease would leave too
    # little time for both.
    "LEASE_SECONDS": _number(2, whole=False),
    "DRAIN_SECONDS": _SECONDS,
    "CRASH_LIMIT": _AT_LEAST_ONE,
    "UNKNOWN_CODE_GRACE_SECONDS": _SECONDS,
    "ATOMIC_WARN_SECONDS": _SECONDS,
    "FLUSH_MS": _AT_LEAST_ONE,
    "MAX_RUNNING_PER_OWNER": _number(1, optional=True),
    "THROTTLES": (are_throttles, 'a dict of rates such as {"requests": "600/min", "sends": "30/min"}, or None'),
    "MAX_BODY_BYTES": _AT_LEAST_ONE,
    "MAX_CHAT_BODY_BYTES": _AT_LEAST_ONE,
    "MAX_TEXT_CHARS": _AT_LEAST_ONE,
    "MAX_TOOL_RESULT_BYTES": _AT_LEAST_ONE,
    "MAX_HISTORY_BYTES": _AT_LEAST_ONE,
    "MAX_ATTACHMENT_BYTES": _AT_LEAST_ONE,
    "MAX_FRAME_BYTES": _AT_LEAST_ONE,
    "WEBSOCKET_THREADS": _AT_LEAST_ONE,
    "MAX_SOCKETS_PER_USER": _AT_LEAST_ONE,
    "MAX_SUBSCRIPTIONS": _AT_LEAST_ONE,
    "MAX_STREAMS_PER_USER": _AT_LEAST_ONE,
    "MAX_JSON_DEPTH": _AT_LEAST_ONE,
    "USAGE_ON_DELETE": _one_of("keep", "drop"),
    "OWNER_ON_DELETE": _one_of("cascade", "keep"),
    "MODEL_DOOR": (
        lambda value: isinstance(value, str) and (value in DOORS or "." in value),
        '"auto", "direct", "litellm", or the dotted path of a class, such as "shop.Door"',
    ),
    "MODEL_READ_SECONDS": _number(1, whole=False),
    "MODEL_CALL_SECONDS": _number(1, whole=False),
    "AI_SDK_DIALECT": _one_of("6", "7"),
    "MAX_WAIT_SECONDS": _number(1, whole=False),
    "APPROVAL_KEYS": (are_keys, f"a list of texts of {MIN_KEY_CHARS} characters or more, the newest first, or None"),
    "TRUSTED_ORIGINS": (are_origins, 'a list of origins such as ["https://app.example.org", "https://*.example.com"]'),
}
"""For each key of ``DURABLE_AGENTS``: a function that checks the value, and a description of valid values."""


@register()
def check_values(**_: object) -> list[CheckMessage]:
    """Check the values in ``DURABLE_AGENTS``. The hint for an invalid value ends with a line that sets the default."""
    given = given_settings()
    if not isinstance(given, Mapping | None):
        text = f"DURABLE_AGENTS is a {type(given).__name__}, not a dict."
        return [Error(text, hint=_paste("Every key has a default.", "DURABLE_AGENTS = {}"), id="durable_agents.E006")]
    messages: list[CheckMessage] = []
    for key, words in _wrong_values():
        shown = "not usable" if key in _SECRET else repr((given or {})[key])
        default = {} if key == "POOLS" else getattr(Config(), key.lower())
        hint = _paste(f"It is {words}. Its default:", f"DURABLE_AGENTS[{key!r}] = {default!r}")
        messages.append(Error(f"DURABLE_AGENTS[{key!r}] is {shown}.", hint=hint, id="durable_agents.E006"))
    return messages


def _wrong_values() -> Iterator[tuple[str, str]]:
    """Yield the keys with invalid values, each with a description of valid values."""
    given = given_settings()
    for key, (fits, words) in RULES.items():
        if isinstance(given, Mapping) and key in given and not fits(given[key]):
            yield key, words


def _is_readable() -> bool:
    """Return whether the settings can be read. If not, the other checks do nothing, and ``check_values`` reports the
    error.
    """
    return not any(key in {"POLICY", "POOLS"} for key, _ in _wrong_values())


@register()
def check_database(**_: object) -> list[CheckMessage]:
    """Check that the threads' database is PostgreSQL or SQLite. Only these support partial unique indexes."""
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
    return sqlite_warnings(connection)


def sqlite_warnings(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    """Return a warning if SQLite's options do not suit concurrent writers. Its hint has options to paste."""
    options: dict[str, object] = connection.settings_dict.get("OPTIONS", {})
    given, timeout = str(options.get("init_command", "")).strip().rstrip(";"), options.get("timeout", 5)
    missing: list[str] = []
    if str(options.get("transaction_mode", "")).upper() != "IMMEDIATE":
        missing.append("transactions are not IMMEDIATE, so one that reads before it writes fails if another is writing")
    if not isinstance(timeout, int | float) or timeout < SQLITE_SECONDS:
        missing.append(f"a writer waits for less than {SQLITE_SECONDS} seconds for its turn")
    if "journal_mode=wal" not in given.lower().replace(" ", ""):
        missing.append("the journal is not WAL, so readers wait for writers")
    if not missing:
        return []
    together = f"{given}; {SQLITE_INIT}" if given and "journal_mode" not in given.lower() else SQLITE_INIT
    fitting = {**options, **SQLITE_OPTIONS, "init_command": together}
    return [
        Warning(
            f"SQLite is not configured for several writers: {'; '.join(missing)}.",
            hint=_paste("Let writers take turns.", f'DATABASES["{connection.alias}"]["OPTIONS"] = {fitting}'),
            id="durable_agents.W001",
        )
    ]


OWN_CONNECTIONS = 4
"""How many connections a worker process needs apart from the connections of its tools: one each for rows, leases, the
reaper and the task of django-q2.
"""


@register()
def check_connection_pool(**_: object) -> list[CheckMessage]:
    """If Django's connection pool is used, check that it has enough connections for one worker process.

    With a smaller pool, a worker might have to wait until its own tools return a connection. While it waits, it might
    lose its leases.
    """
    connection = connections[router.db_for_write(Thread)]
    options = connection.settings_dict.get("OPTIONS", {}).get("pool")
    if connection.vendor != "postgresql" or not options or not _is_readable():
        return []
    given = options if isinstance(options, Mapping) else {}
    least = config().tool_threads + OWN_CONNECTIONS
    # In psycopg_pool, ``max_size`` defaults to ``min_size``, and ``min_size`` defaults to 4.
    size = given.get("max_size", given.get("min_size", 4))
    if size is None or size >= least:
        return []
    line = f'DATABASES[{connection.alias!r}]["OPTIONS"]["pool"] = { ({**given, "max_size": least}) }'
    return [
        Warning(
            f"The pool has {size} connections, and a worker process uses up to {least}.",
            hint=_paste("A worker needs TOOL_THREADS connections and four more. Unused connections are closed.", line),
            id="durable_agents.W012",
        )
    ]


@register()
def check_pools(**_: object) -> list[CheckMessage]:
    """Check that every pool's cluster exists, and that every agent and tool uses a configured pool."""
    if not _is_readable():
        return []
    pools, queue = config().pools, q_cluster()
    clusters = {default_cluster(), str(queue.get("name", "default")), *queue.get("ALT_CLUSTERS", {})}
    used = {agent.pool for agent in registry.all()}
    used |= {agent.pool_of(tool_name) for agent in registry.all() for tool_name in agent.tools}
    messages: list[CheckMessage] = []
    for cluster in sorted({pool.cluster for pool in pools.values() if pool.cluster} - clusters):
        served = ", ".join(repr(name) for name, pool in pools.items() if pool.cluster == cluster)
        hint = _paste(
            f"The clusters are: {', '.join(sorted(clusters))}. Add a cluster, and start it with "
            f"Q_CLUSTER_NAME={cluster} before `manage.py qcluster`.",
            f'Q_CLUSTER.setdefault("ALT_CLUSTERS", {{}})["{cluster}"] = {{"timeout": 300, "retry": 360}}',
        )
        text = f"No django-q2 cluster is called {cluster!r}, so no worker serves the pool {served}."
        messages.append(Error(text, hint=hint, id="durable_agents.E003"))
    for name in sorted(used - set(pools)):
        hint = _paste(
            f"The pools are: {', '.join(sorted(pools))}.",
            f'DURABLE_AGENTS.setdefault("POOLS", {{}})["{name}"] = {{"limit": 10}}',
        )
        text = f"There is no pool {name!r}, so runs and tools that use it would wait for ever."
        messages.append(Error(text, hint=hint, id="durable_agents.E004"))
    return messages


@register()
def check_tools(**_: object) -> list[CheckMessage]:
    """Check that each tool has a schema. Without one, every run of an agent with this tool would fail."""
    tools = {item.name: item for agent in registry.all() for item in agent.tools.values()} | registry.known_tools()
    hint = "Annotate its parameters with types that Pydantic knows, and that exist where the module is imported."
    messages: list[CheckMessage] = []
    for name, item in sorted(tools.items()):
        try:
            _ = item.definition
        except Exception as error:
            text = f"Tool {name!r} cannot be offered to a model. {error}"
            messages.append(Error(text, hint=hint, id="durable_agents.E012"))
    return messages


@register()
def check_policy(**_: object) -> list[CheckMessage]:
    """Check that the policy class can be imported and has all methods."""
    if not _is_readable():
        return []
    hint = _paste("Use the default until then.", 'DURABLE_AGENTS["POLICY"] = "durable_agents.policies.OwnerPolicy"')
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
def check_permission_classes(**_: object) -> list[CheckMessage]:
    """Warn if the project sets strict REST framework permission classes, but keeps the default policy.

    This package's API ignores the permission classes, because they know nothing of threads and do not apply to
    websockets. The policy decides instead. The project may wrongly expect that its classes protect the API.
    """
    if not _is_readable() or config().policy != Config.policy:
        return []
    others = [name for name in default_permissions() if name not in {"AllowAny", "IsAuthenticated"}]
    if not others:
        return []
    text = (
        f"The agents' API does not use {', '.join(others)} of DEFAULT_PERMISSION_CLASSES: every signed-in user may use "
        "public agents."
    )
    hint = _paste(
        "A policy decides for REST, websockets and the chat alike: write one (docs/howto/tenancy.md), and name it in "
        'DURABLE_AGENTS["POLICY"]. If every signed-in user may use public agents, silence this check.',
        'SILENCED_SYSTEM_CHECKS = ["durable_agents.W019"]',
    )
    return [Warning(text, hint=hint, id="durable_agents.W019")]


@register()
def check_queue(**_: object) -> list[CheckMessage]:
    """Check that django-q2 is configured, that its broker works, and that tasks run in worker processes.

    Also check that django-q2's scheduler is on. A scheduled task notifies workers again if a notification was lost.
    """
    if not q_cluster():
        wanted = {"name": project_package(), "orm": "default", "workers": 4, "timeout": 300, "retry": 360}
        text = "Q_CLUSTER is not set: django-q2 looks for a Redis on this host."
        return [
            Warning(
                text, hint=_paste("Keep the queue in the database.", f"Q_CLUSTER = {wanted}"), id="durable_agents.W008"
            )
        ]
    messages: list[CheckMessage] = list(broken_broker(q_cluster()))
    if q_cluster().get("sync"):
        text = "Q_CLUSTER has sync on: model calls would be made inside web requests, and no request would return."
        hint = _paste(
            'Tests need no "sync": durable_agents.testing runs workers inside them.', 'Q_CLUSTER["sync"] = False'
        )
        messages.append(Warning(text, hint=hint, id="durable_agents.W002"))
    if not q_cluster().get("scheduler", True):
        text = "Q_CLUSTER has its scheduler off: a thread whose worker died may wait until somebody opens it."
        hint = _paste('Switch it on, or run "manage.py agents_sweep" every minute.', 'Q_CLUSTER["scheduler"] = True')
        messages.append(Warning(text, hint=hint, id="durable_agents.W003"))
    return messages


def broken_broker(given: Mapping[str, object]) -> Iterator[CheckMessage]:
    """Yield an error if the broker's database does not exist, or if the broker's library is not installed."""
    alias = str(given.get("orm") or "")
    if alias and alias not in connections:
        yield Error(
            f"Q_CLUSTER keeps its queue in the database {alias!r}, which is not in DATABASES.",
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
def check_apps(**_: object) -> list[CheckMessage]:
    missing = [name for name in APPS if not apps.is_installed(name)]
    if not missing:
        return []
    hint = _paste("Add what is missing.", f"INSTALLED_APPS = [*INSTALLED_APPS, {', '.join(map(repr, missing))}]")
    return [Error(f"INSTALLED_APPS lacks {', '.join(missing)}.", hint=hint, id="durable_agents.E008")]


@register()
def check_asgi(**_: object) -> list[CheckMessage]:
    """Check that public agents can stream to browsers, which needs ASGI."""
    if asgi_application() or not registry.public():
        return []
    text = "ASGI_APPLICATION is not set, so nothing can stream to browsers: they have to poll."
    line = f'ASGI_APPLICATION = "{project_package()}.asgi.application"'
    hint = _paste("docs/quickstart.md shows the asgi.py that this needs.", line)
    return [Warning(text, hint=hint, id="durable_agents.W006")]


@register(deploy=True)
def check_urls(**_: object) -> list[CheckMessage]:
    """Check that the project has URLs for public agents. This check runs only with ``--deploy``, because it imports
    all views of the project.
    """
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
def check_channel_layer(**_: object) -> list[CheckMessage]:
    """Check that the channel layer reaches other processes, so that workers can notify web processes in production."""
    if layer_crosses_processes():
        return []
    text = "The channel layer does not reach other processes, so every web process polls the database for its browsers."
    hint = _paste("Install the extra: django-durable-agents[redis].", f"CHANNEL_LAYERS = {LAYER}")
    return [Warning(text, hint=hint, id="durable_agents.W004")]


@register(deploy=True)
def check_files(**_: object) -> list[CheckMessage]:
    """Warn if uploaded files are stored in the file system and no directory is configured."""
    if getattr(attachment_storage.storage(), "base_location", None) != "":
        return []
    text = "Uploaded files are stored in the directory in which a process was started."
    hint = _paste("Name one that all web and worker processes share.", 'MEDIA_ROOT = "/srv/mysite/media"')
    return [Warning(text, hint=hint, id="durable_agents.W010")]


@register()
def check_redis_timeouts(**_: object) -> list[CheckMessage]:
    """Check that Redis connections have timeouts, and that the timeouts are longer than blocking reads."""
    return [
        message
        for alias, layer in channel_layers().items()
        if str(layer.get("BACKEND", "")).startswith("channels_redis.")
        for message in layer_timeouts(alias)
    ] + (list(broker_timeouts()) if q_cluster() else [])  # ``check_queue`` reports a missing Q_CLUSTER


def _timeouts_of(setting: str) -> list[float | None]:
    return [server.socket_timeout for server in redis_servers() if server.setting == setting]


def layer_timeouts(alias: str) -> Iterator[CheckMessage]:
    """Check the socket timeouts of a channel layer. ``channels_redis``'s core layer waits up to five seconds for each
    message. With a shorter socket timeout, this wait would end with an error and close the websocket.
    """
    timeouts = _timeouts_of(f'CHANNEL_LAYERS["{alias}"]')
    hint = _paste(
        "Give every host as a dict, with the address that is set now.",
        f'CHANNEL_LAYERS[{alias!r}].setdefault("CONFIG", {{}})["hosts"] = {LAYER_HOSTS}',
    )
    is_blocking = channel_layers()[alias]["BACKEND"] != LAYER_BACKEND
    if is_blocking and any(timeout is not None and timeout <= LAYER_WAIT_SECONDS for timeout in timeouts):
        text = "The Redis channel layer closes websockets that are silent for five seconds: its timeout is too short."
        yield Warning(text, hint=hint, id="durable_agents.W005")
    elif None in timeouts:
        text = "The Redis channel layer has no timeout: it waits for ever for a Redis that hangs."
        yield Warning(text, hint=hint, id="durable_agents.W016")


def broker_timeouts() -> Iterator[CheckMessage]:
    """Check the broker's timeouts. Each read of django-q2 blocks for one second, so the timeouts must be longer."""
    timeouts = _timeouts_of('Q_CLUSTER["redis"]')
    if None in timeouts:
        text = "The broker has no timeout: workers wait for ever for a Redis that hangs."
    elif any(timeout is not None and timeout <= BROKER_WAIT_SECONDS for timeout in timeouts):
        text = "The broker's timeout is too short: an empty queue blocks each read for one second."
    else:
        return
    hint = _paste("Append the timeouts to the address that is set now.", f'Q_CLUSTER["redis"] = "{BROKER}"')
    yield Warning(text, hint=hint, id="durable_agents.W016")


@register()
def check_cache(**_: object) -> list[CheckMessage]:
    """Check that all processes share the cache for throttles, and that its connections to Redis have a timeout."""
    backend = default_cache()
    if not (given := given_settings()) or not isinstance(given, Mapping) or not given.get("THROTTLES"):
        return []
    if any(server.socket_timeout is None for server in cache_servers("default")):
        text = "THROTTLES are counted in a Redis without a timeout: if it hangs, every request waits for ever."
        line = f'CACHES["default"].setdefault("OPTIONS", {{}}).update({CACHE_OPTIONS})'
        hint = _paste("Set timeouts. With django-redis, write the names of these options in capital letters.", line)
        return [Warning(text, hint=hint, id="durable_agents.W016")]
    if backend.rpartition(".")[2] not in {"LocMemCache", "DummyCache"}:
        return []
    text = f"THROTTLES are counted in the default cache, and processes do not share a {backend.rpartition('.')[2]}."
    sentence = "Each process would allow the full rate. Use a shared cache; this one needs the package redis."
    line = f'CACHES["default"] = {CACHE}' if has_caches() else f'CACHES = {{"default": {CACHE}}}'
    hint = _paste(sentence, line)
    return [Warning(text, hint=hint, id="durable_agents.W009")]


@register(deploy=True)
def check_origins(**_: object) -> list[CheckMessage]:
    """Check that only trusted sites can open websockets.

    A websocket's origin must match the request's ``Host``. If any host is allowed, an attacker can point a domain at
    this server. Pages of that domain could then open websockets.
    """
    messages: list[CheckMessage] = []
    if "*" in allowed_hosts():
        text = "ALLOWED_HOSTS allows any host, so pages of any domain that points at this server may open websockets."
        hint = _paste("Name the hosts of this site.", 'ALLOWED_HOSTS = ["www.example.org"]')
        messages.append(Warning(text, hint=hint, id="durable_agents.W017"))
    if ANY in config().trusted_origins:
        text = "DURABLE_AGENTS['TRUSTED_ORIGINS'] lets pages of any site open websockets with their visitors' cookies."
        hint = _paste("Name the origins.", 'DURABLE_AGENTS["TRUSTED_ORIGINS"] = ["https://app.example.org"]')
        messages.append(Warning(text, hint=hint, id="durable_agents.W017"))
    return messages


@register(deploy=True)
def check_scheme(**_: object) -> list[CheckMessage]:
    """Check that Django knows the scheme (http or https) of a site behind a TLS proxy.

    If it does not, forms from the origins in ``CSRF_TRUSTED_ORIGINS`` are accepted, but websockets from the same pages
    are refused.
    """
    others = [origin for origin in csrf_trusted_origins() if origin not in config().trusted_origins]
    own = [origin for origin in others if validate_host(urlsplit(origin).hostname or "", allowed_hosts())]
    if knows_scheme_from_proxy() or not own:
        return []
    text = f"Forms from {', '.join(own)} are accepted, but websockets are refused unless the server itself uses TLS."
    sentence = "List these origins in TRUSTED_ORIGINS. Or, if your proxy always sets this header, let Django use it."
    hint = _paste(sentence, 'SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")')
    return [Warning(text, hint=hint, id="durable_agents.W018")]


@register(deploy=True)
def check_proxies(**_: object) -> list[CheckMessage]:
    """Check that the number of proxies is set. ``THROTTLES`` needs this number to tell visitors apart by address."""
    given = given_settings()
    if not isinstance(given, Mapping) or not given.get("THROTTLES") or number_of_proxies() is not None:
        return []
    text = "THROTTLES count visitors by the address of the connection. Behind a proxy that is the proxy's address."
    sentence = "Set the number of proxies in front of this site, or 0 if there is none."
    hint = _paste(sentence, 'REST_FRAMEWORK = {**globals().get("REST_FRAMEWORK", {}), "NUM_PROXIES": 1}')
    return [Warning(text, hint=hint, id="durable_agents.W015")]
