"""The checks of ``agents_doctor``, one function per area. Each problem comes with a hint on how to solve it."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from asgiref.sync import async_to_sync
from django.core.checks import ERROR, WARNING
from django.core.checks.registry import registry as check_registry
from django.db import DatabaseError, Error, connections, router
from django.db.migrations.executor import MigrationExecutor
from django.db.models.functions import Now
from django.utils import timezone

from durable_agents.agents import Agent, registry
from durable_agents.conf import cluster_of, config, default_cluster, q_cluster
from durable_agents.lifecycle import database, project, try_to_write
from durable_agents.live.hub import HEAL_SECONDS
from durable_agents.live_delivery_counts import CLOSED, Event
from durable_agents.llm import DOORS
from durable_agents.llm.auto_door import reason_for_litellm
from durable_agents.llm.model_catalog import estimated_cost, listed
from durable_agents.llm.types import provider_of
from durable_agents.models import DeliveryReport, Pool, Stream, Thread, ToolCall, WorkerProblem, calls_of, streams_of
from durable_agents.notifications import layer_crosses_processes
from durable_agents.reading.usage import cache_use_by_model
from durable_agents.task_queue.inspection import clusters_seen, late_queues, layer_round_trip, queue_size, sweep_facts
from durable_agents.task_queue.redis_servers import redis_servers
from durable_agents.utc_times import instant
from durable_agents.worker_identity import is_gone
from durable_agents.worker_problem_files import Notice, posted

Level = Literal["ok", "warning", "error"]

OVERDUE_SECONDS = 60.0
CLOCK_SECONDS = 5.0
ROUND_TRIP_SECONDS = 1.0
OLDEST_POSTGRESQL = 14
OLDEST_SQLITE = (3, 35)
CACHEABLE_TOKENS = 8_000
"""``check_prompt_caches`` ignores model calls with fewer input tokens. Providers cache the beginning of a request only
if it has at least 1,024 to 4,096 tokens, depending on the model.
"""
JUDGED_TOKENS = 100_000
LOW_HIT_PERCENT = 20

KEYS = {
    "anthropic": "ANTHROPIC_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistral": "MISTRAL_API_KEY",
    "openai": "OPENAI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "xai": "XAI_API_KEY",
}
"""The environment variables from which litellm takes the API keys of well-known providers."""
OWN_SERVER = frozenset({"api_base", "base_url"})
"""The options in ``model_settings`` that set a server other than the provider's."""
LOCAL = frozenset({"hosted_vllm", "lemonade", "llamafile", "lm_studio", "ollama", "ollama_chat"})
"""litellm's names for model servers that a project runs itself."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check. ``hint`` says how to solve a problem."""

    area: str
    level: Level
    text: str
    hint: str = ""


Said = tuple[Level, str, str]
"""A finding without the area: level, text and hint."""


def examine(*, models: bool = False) -> list[Finding]:
    """Run all checks and return their findings. If a check raises an exception, the others still run.

    With ``models``, litellm checks the models. Importing litellm takes seconds.
    """
    areas: list[tuple[str, Callable[[], Iterator[Said]]]] = [
        ("package", check_package),
        ("settings", check_settings),
        ("database", check_database),
    ]
    found = [finding for area, look in areas for finding in _looked(area, look)]
    # If the database fails, most other checks would fail with the same error, so skip them. ``check_stuck_workers`` is
    # still useful, because it also reads problems of workers from files.
    if any(finding.area == "database" and finding.level == "error" for finding in found):
        areas = [("channel layer", check_channel_layer), ("workers", check_stuck_workers)]
    else:
        areas = [
            ("database", check_writes),
            ("broker", check_brokers),
            ("sweep", check_sweep),
            ("channel layer", check_channel_layer),
            ("delivery", check_delivery),
            ("workers", check_workers),
            ("agents", check_agents),
            ("prompt caches", check_prompt_caches),
        ]
    areas.append(("models", check_models_by_litellm if models else check_models))
    return found + [finding for area, look in areas for finding in _looked(area, look)]


def _looked(area: str, look: Callable[[], Iterator[Said]]) -> list[Finding]:
    found: list[Finding] = []
    try:
        for level, text, hint in look():
            found.append(Finding(area=area, level=level, text=text, hint=hint))
    except Exception as error:
        text = f"The check failed: {type(error).__name__}: {error}"
        found.append(Finding(area=area, level="error", text=text))
    return found


# The package.


def check_package() -> Iterator[Said]:
    """Check that no other distribution with the import name ``durable_agents`` is installed."""
    try:
        other = version("durable-agents")
    except PackageNotFoundError:
        own = "(not installed: imported from its source tree)"
        with suppress(PackageNotFoundError):
            own = version("django-durable-agents")
        yield "ok", f"django-durable-agents {own}", ""
        return
    text = f'The distribution "durable-agents" ({other}) is installed. It is another project with the same import name.'
    yield "error", text, "pip uninstall durable-agents && pip install --force-reinstall django-durable-agents"


# Settings.


def check_settings() -> Iterator[Said]:
    """Run this package's system checks. Also check for harmful values in the settings of the queue and of Redis."""
    problems = 0
    for check in check_registry.get_checks():
        if not check.__module__.startswith("durable_agents."):
            continue
        for message in check(app_configs=None, databases=None):
            if message.level >= WARNING and not message.is_silenced():
                problems += 1
                yield (
                    "error" if message.level >= ERROR else "warning",
                    f"{message.msg} ({message.id})",
                    message.hint or "",
                )
    for said in (*check_queue_limits(), *check_redis_passwords()):
        problems += 1
        yield said
    if not problems:
        yield "ok", "The system checks found no problem.", ""


def check_queue_limits() -> Iterator[Said]:
    """Check that the queue has a ``timeout`` and a longer ``retry``. Otherwise, two workers can run the same task."""
    # After ``retry`` seconds, django-q2 gives a task to another worker, even if the first worker is still running the
    # task.
    retry, timeout = q_cluster().get("retry", 60), q_cluster().get("timeout")
    if timeout is not None and retry <= timeout:
        text = f"Q_CLUSTER has retry {retry} and timeout {timeout}, so two workers may run the same task at once."
        yield "warning", text, f'Set Q_CLUSTER["retry"] above the timeout, for example {timeout + 60}.'
    if timeout is None:
        text = "Q_CLUSTER has no timeout, so two workers run a task at once that takes longer than its retry."
        yield "warning", text, 'Set "timeout" in Q_CLUSTER, and a longer "retry". Neither limits agents.'


def check_redis_passwords() -> Iterator[Said]:
    """Warn about each Redis on another host that accepts clients without a password."""
    for server in redis_servers():
        if server.is_on_this_host or server.has_password:
            continue
        text = f"{server.setting} names a Redis on {server.host!r} without a password."
        hint = (
            f'Use a URL such as "rediss://user:password@{server.host}:6379/0" and a user with few rights. Whoever can '
            "write to the broker and knows SECRET_KEY can run code in the workers (docs/howto/deployment.md#redis)."
        )
        yield "warning", text, hint


# The database.


def check_database() -> Iterator[Said]:
    """Check the connection, the version of the database and the migrations. Also check that the pool limits in the
    database are the same as in the settings.
    """
    connection = connections[database()]
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        text = f"The database {connection.alias!r} does not answer: {error}"
        yield "error", text.strip(), f'Start it, or correct DATABASES["{connection.alias}"].'
        return
    if connection.vendor == "postgresql":
        yield from check_postgresql(connection)
    elif connection.vendor == "sqlite":
        yield from check_sqlite(connection)
    unapplied: list[str] = []
    # A database router can keep django-q2's tables in another database.
    schedule = importlib.import_module("django_q.models").Schedule
    for app, alias in (("durable_agents", database()), ("django_q", router.db_for_write(schedule))):
        executor = MigrationExecutor(connections[alias])
        leaves = executor.loader.graph.leaf_nodes(app)
        unapplied += [f"{step.app_label} {step.name}" for step, _ in executor.migration_plan(leaves)]
    if unapplied:
        more = f" and {len(unapplied) - 3} more" if len(unapplied) > 3 else ""
        text = f"Migrations are not applied: {', '.join(unapplied[:3])}{more}."
        yield "error", text, "Run: manage.py migrate"
        return
    yield from check_pool_rows()


def check_writes() -> Iterator[Said]:
    """Check that the database accepts writes. A database that is read-only, full or locked can still be read."""
    try:
        try_to_write()
    except Error as error:
        text = f"The database {database()!r} does not accept writes: {error}".strip()
        yield (
            "error",
            text,
            "Remove the cause, such as a full disk, a lock or a failover. Workers then continue by themselves.",
        )


def check_postgresql(connection: Any) -> Iterator[Said]:
    """Check PostgreSQL's version and clock. Also check that a connection pooler does not break cursors."""
    major = connection.pg_version // 10_000
    if major < OLDEST_POSTGRESQL:
        yield "error", f"PostgreSQL {major} is too old.", f"Use PostgreSQL {OLDEST_POSTGRESQL} or newer."
    else:
        yield "ok", f"PostgreSQL {major}", ""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp(), pg_backend_pid()")
        theirs, session = cursor.fetchone()
    # Behind a connection pooler, ``backend_pid`` is an id of the pooler, not the id of the PostgreSQL process.
    info = connection.connection.info
    if getattr(info, "backend_pid", session) != session and not connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"]:
        text = "PostgreSQL is behind a pooler such as PgBouncer. In transaction mode a cursor would lose its session."
        hint = f"At the end of the settings:\n    DATABASES[{connection.alias!r}]['DISABLE_SERVER_SIDE_CURSORS'] = True"
        yield "error", text, hint
    apart = abs((instant(theirs) - instant(timezone.now())).total_seconds())
    if apart > CLOCK_SECONDS:
        text = f"The clocks of the database and of this host are {apart:.0f} s apart."
        yield "warning", text, "Leases use the database's clock, django-q2 uses each host's clock. Run NTP on both."


def check_sqlite(connection: Any) -> Iterator[Said]:
    """Check SQLite's version and journal mode."""
    found = connection.Database.sqlite_version_info
    name = f"SQLite {connection.Database.sqlite_version}"
    with connection.cursor() as cursor:
        [journal] = cursor.execute("PRAGMA journal_mode").fetchone()
    if found < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        yield "error", f"{name} is too old.", f"Use a Python with SQLite {oldest} or newer."
    elif journal not in {"wal", "memory"}:  # an in-memory database, as in tests, has no WAL
        text = f"{name} uses the journal mode {journal!r}, so readers and writers wait for each other."
        yield "warning", text, 'Put "PRAGMA journal_mode=WAL;" into the init_command of its OPTIONS.'
    else:
        yield "ok", f"{name}, journal mode {journal}", ""


def check_pool_rows() -> Iterator[Said]:
    """Check that the database has the same pool limits as the settings. Workers use the limits in the database."""
    rows = dict(Pool.objects.using(database()).values_list("name", "limit"))
    stale = sorted(name for name, pool in config().pools.items() if rows.get(name) != (pool.limit or Pool.NO_LIMIT))
    if stale:
        text = f"The limits of the pools {', '.join(stale)} differ between the database and the settings."
        yield "warning", text, "The database is updated when a worker starts, and by manage.py migrate."


# The queue.


def _clusters() -> list[str]:
    return sorted({cluster_of(pool) for pool in config().pools})


def check_brokers() -> Iterator[Said]:
    """Check that the broker of each cluster answers, and that each queue with tasks has a cluster."""
    for cluster in _clusters():
        try:
            size = queue_size(cluster)
        except Exception as error:
            text = f"The broker of cluster {cluster!r} does not answer: {type(error).__name__}: {error}"
            hint = "Start it, or correct Q_CLUSTER. Until then only the sweep and busy workers find due rows."
            yield "error", text, hint
        else:
            yield "ok", f"Cluster {cluster!r}: {size} tasks wait in the queue.", ""
    # Skip the clusters that run agents, because ``check_workers`` checks them.
    for queue in sorted(set(late_queues()) - set(_clusters())):
        text = f"No cluster seems to serve the queue {queue!r}: its tasks or schedules have been due for minutes."
        yield "warning", text, f"Run: {_start(queue)}, or delete its tasks and schedules in the admin."


def check_sweep() -> Iterator[Said]:
    """Check that the sweep is scheduled and runs. The sweep is a periodic task that recovers lost rows."""
    facts = sweep_facts()
    if facts is None:
        text = "The sweep is not scheduled: a thread whose worker died may wait until somebody opens it."
        yield "error", text, "Run: manage.py migrate (or start a worker, which schedules it)."
    elif facts.is_switched_off:
        text = "The schedule of the sweep has used up its repeats: it never runs again."
        yield "error", text, 'Delete the schedule "durable_agents sweep" in the admin and run: manage.py migrate'
    elif not facts.cluster_is_right:
        text = f"The sweep is not scheduled on {cluster_of('agents')!r}, the cluster that serves agents."
        yield "warning", text, "Run: manage.py migrate"
    elif facts.is_late:
        text = f"The sweep should have run {facts.late_by.total_seconds():.0f} s ago, but no cluster runs it."
        yield "warning", text, f"Run: {_start(cluster_of('agents'))}"
    else:
        yield "ok", "The sweep runs on schedule." if facts.has_run else "The sweep is scheduled.", ""


def _start(cluster: str) -> str:
    command = "manage.py qcluster"
    return command if cluster == default_cluster() else f"Q_CLUSTER_NAME={cluster} {command}"


def check_channel_layer() -> Iterator[Said]:
    """Check that the channel layer delivers a message."""
    if not layer_crosses_processes():
        yield (
            "ok",
            "The channel layer does not reach other processes: web processes poll the database instead.",
            "",
        )
        return
    try:
        async_to_sync(layer_round_trip)(ROUND_TRIP_SECONDS)
    except Exception as error:
        text = f"The channel layer does not deliver messages: {type(error).__name__}: {error}"
        # A TimeoutError has no message. Remove the colon before the empty message.
        yield (
            "error",
            text.rstrip(": "),
            "Start its server, or correct CHANNEL_LAYERS. Browsers see changes late.",
        )
    else:
        yield "ok", "The channel layer delivers messages.", ""


DELIVERY_SECONDS = 3600.0
DELIVERY_PROBLEMS = {
    Event.HINT_NOT_SENT: (
        "{number} messages about changes were not sent {where}, so browsers showed these changes up to {heal} s late.",
        "Look at the load and the log of the channel layer's server (log action ring_browsers).",
    ),
    Event.HINT_NOT_RECEIVED: (
        "{number} messages about changes did not arrive {where}, so browsers showed these changes up to {heal} s late.",
        "Check that all processes have the same CHANNEL_LAYERS, and look at the load of the layer's server.",
    ),
    Event.STALE_THREAD: (
        "{number} times, messages about an open thread were lost or came too fast {where}; its rows were read again.",
        "Now and then, this is harmless. Otherwise, look at the load of the web processes, the database and the layer.",
    ),
    Event.SLOW_CLOSE: (
        "{number} websockets were closed {where}, because their clients did not read what they were sent.",
        "Clients on bad networks do this, and connect again. If there are many, look at the proxy.",
    ),
}


def check_delivery() -> Iterator[Said]:
    """Report problems of live delivery to browsers, as counted by processes in about the last two hours."""
    reports = list(DeliveryReport.objects.using(database()).stored_within(DELIVERY_SECONDS))
    if not reports:
        yield "ok", "In the last hour, no process has counted anything about websockets and event streams.", ""
        return
    oldest = min(instant(report.since) for report in reports)
    within = f"within {max(1, round((timezone.now() - oldest).total_seconds() / 60))} min"
    for event, (text, hint) in DELIVERY_PROBLEMS.items():
        processes: Counter[str] = Counter()
        for report in reports:
            processes[_pid(report.holder)] += report.counts.get(event, 0)
        if number := processes.total():
            some = ", ".join(f"process {pid}: {count}" for pid, count in processes.most_common(5) if count)
            yield "warning", text.format(number=number, where=f"{within} ({some})", heal=HEAL_SECONDS), hint
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report.counts)
    codes = {name.removeprefix(CLOSED): count for name, count in sorted(total.items()) if name.startswith(CLOSED)}
    closes = ", ".join(f"{count} with {code}" for code, count in codes.items()) or "none"
    processes_text = f"{len({report.holder for report in reports})} processes {within}"
    yield "ok", f"{processes_text}: {total[Event.SNAPSHOT]} snapshots sent; websockets closed: {closes}.", ""


def _pid(holder: str) -> str:
    """Return the process id in the name of a lease owner."""
    return "".join(holder.split(":")[-2:-1])


# Workers.


@dataclass(frozen=True, kw_only=True)
class Load:
    """How many rows of one pool are held by workers, and how many wait for a worker."""

    held: int
    """The number of rows with a lease that has not expired."""
    waiting: int
    """The number of overdue rows that this version of the code can run."""
    unknown: Sequence[str]
    """The names of agents and tools that overdue rows need but this code does not define."""

    @classmethod
    def of(cls, pool: str) -> Load:
        """Count the rows of a pool."""
        streams = Stream.objects.using(database()).filter(pool=pool)
        calls = ToolCall.objects.using(database()).filter(pool=pool)
        held = sum(rows.held().filter(lease_expires_at__gt=Now()).count() for rows in (streams, calls))
        late_streams, late_calls = streams.overdue(OVERDUE_SECONDS), calls.overdue(OVERDUE_SECONDS)
        known_streams, known_calls = streams_of(registry.code()), calls_of(registry.code())
        waiting = late_streams.filter(known_streams).count() + late_calls.filter(known_calls).count()
        unknown = {
            *late_streams.exclude(known_streams).values_list("agent", flat=True),
            *late_calls.exclude(known_calls).values_list("tool_name", flat=True),
        }
        return cls(held=held, waiting=waiting, unknown=sorted(unknown))


PROBLEM_SECONDS = 60.0
"""After this time without a report, a problem counts as solved. Workers report a problem every ten seconds."""
LEFT_SECONDS = 600.0
TRIES = {
    "claims": "claim rows",
    "leases": "extend its leases",
    "reaping": "look for the rows of dead workers",
}


def _notices() -> list[Notice]:
    """Return the problems of living workers, from files on this machine and from the database."""
    # Read the files too. If the database has failed, workers cannot store their problems in it, or this process cannot
    # read them.
    found = {(notice.holder, notice.kind): notice for notice in posted(project=project())}
    with suppress(Error):
        for row in WorkerProblem.objects.using(database()).open(PROBLEM_SECONDS):
            notice = Notice(
                holder=row.holder,
                cluster=row.cluster,
                kind=row.kind,
                detail=row.detail,
                since=instant(row.since).timestamp(),
            )
            if not is_gone(row.holder):
                found.setdefault((row.holder, row.kind), notice)
    return list(found.values())


def check_stuck_workers() -> Iterator[Said]:
    """Report workers that are alive but cannot work, and workers that have exited because they could not work."""
    for notice in _notices():
        text = (
            f"A worker of cluster {notice.cluster!r} (process {_pid(notice.holder)}) is alive and has not been able to "
            f"{TRIES.get(notice.kind, 'work')} for {notice.seconds:.0f} s: {notice.detail}"
        )
        yield "error", text, "Remove the cause; no restart is needed. The worker's log says more (action worker_stuck)."
    with suppress(Error):
        rows = WorkerProblem.objects.using(database()).filter(kind="threads").ended_within(LEFT_SECONDS)
        left = list(rows.values_list("cluster", "detail"))
        if left:
            cluster, detail = left[0]
            text = f"{len(left)} workers (cluster {cluster!r}) have exited: they could not start threads: {detail}"
            yield (
                "warning",
                text,
                "Raise the workers' limits of memory and processes (ulimit -u, pids.max, MemoryMax).",
            )


def check_workers() -> Iterator[Said]:
    """Check that each cluster has workers, and that the workers claim due rows in time."""
    yield from check_stuck_workers()
    stuck = {notice.cluster for notice in _notices()}
    facts = sweep_facts()
    sweeps = facts is not None and facts.has_run and not facts.is_late
    seen = 0
    # django-q2 counts the clusters of all names together. Use the count only if all clusters have the same name.
    if _clusters() == [default_cluster()] and not q_cluster().get("ALT_CLUSTERS"):
        with suppress(Exception):  # check_brokers reports the error
            seen = clusters_seen()
    for cluster in _clusters():
        loads = {pool: Load.of(pool) for pool in config().pools_of(cluster)}
        problems = [
            said for pool, load in loads.items() for said in check_load(cluster, pool, load, stuck=cluster in stuck)
        ]
        yield from problems
        if cluster in stuck:
            continue
        is_alive = seen or any(load.held for load in loads.values()) or (sweeps and cluster == cluster_of("agents"))
        if is_alive:
            held = sum(load.held for load in loads.values())
            yield "ok", f"Cluster {cluster!r} is alive; its workers hold {held} rows.", ""
        elif not any(level == "error" for level, _, _ in problems):
            text = f"No worker of cluster {cluster!r}, which serves {', '.join(loads)}, seems to be running."
            yield "warning", text, f"Run: {_start(cluster)}"


def check_load(cluster: str, pool: str, load: Load, *, stuck: bool) -> Iterator[Said]:
    """Report rows of a pool that have been waiting for too long, with the reason."""
    limit = config().pool(pool).limit
    if load.unknown:
        text = f"In pool {pool!r} rows wait for agents or tools that are not in this code: {', '.join(load.unknown)}."
        yield "warning", text, "Deploy them, or do nothing: after UNKNOWN_CODE_GRACE_SECONDS these rows fail."
    if load.waiting and limit is not None and load.held >= limit:
        text = f"The pool {pool!r} is full: {load.held} rows are held, {load.waiting} have waited for over a minute."
        yield "warning", text, f'Raise its limit in DURABLE_AGENTS["POOLS"] (now {limit}), and add workers.'
    elif load.waiting:
        text = f"In pool {pool!r} {load.waiting} rows have been due for over a minute, and no worker claims them."
        hint = "The workers are alive but cannot work: see above." if stuck else f"Run: {_start(cluster)}"
        yield "error", text, hint


# Agents.


def check_agents() -> Iterator[Said]:
    """Report agents that nobody seems to use, because they are not public and have no threads."""
    internal = [agent for agent in registry.all() if not agent.public]
    threads = Thread.objects.using(database())
    unused = [agent.name for agent in internal if not threads.filter(agent__in=agent.names).exists()]
    if unused:
        text = f"These agents are not public and have no threads, so nobody can reach them: {', '.join(unused)}."
        yield "warning", text, "Add public=True to let clients use them, or create threads for them in Python."
    else:
        yield "ok", "Every agent is public or has threads.", ""


def check_prompt_caches() -> Iterator[Said]:
    """Report models whose prompt cache was rarely hit during the last day.

    The check covers models with enough long calls and a known prompt cache. A prompt cache is known if the model has
    reported cached tokens, or if litellm's price list has a price for cached tokens.
    """
    used = [
        use
        for use in cache_use_by_model(within=timedelta(days=1), min_call_tokens=CACHEABLE_TOKENS)
        if use.input_tokens >= JUDGED_TOKENS
        and (use.cached_input_tokens or use.cache_write_tokens or listed(use.model).get("cache_read_input_token_cost"))
    ]
    rates = {use.model: 100 * use.cached_input_tokens // use.input_tokens for use in used}
    low = [f"{model} ({percent} %)" for model, percent in rates.items() if percent < LOW_HIT_PERCENT]
    if low:
        text = f"Less than {LOW_HIT_PERCENT} % of the input tokens of the last day came from the prompt cache: "
        hint = (
            "Each call should begin as the last one did: the same instructions and tools, and the same earlier "
            "messages (docs/howto/agents.md#prompt-caches)."
        )
        yield "warning", f"{text}{', '.join(low)}.", hint
    elif rates:
        shown = ", ".join(f"{model} {percent} %" for model, percent in rates.items())
        yield "ok", f"Input tokens of the last day that came from prompt caches: {shown}.", ""
    else:
        yield "ok", "No model with a prompt cache has had enough long calls during the last day.", ""


# Models.


def check_models() -> Iterator[Said]:
    """Check that the environment has the API keys of well-known providers."""

    def missing_key(model: str) -> str:
        key = KEYS.get(model.partition("/")[0])
        return f"the environment has no {key}" if key is not None and not os.environ.get(key) else ""

    yield from _for_each_model(missing_key, "The environment has the keys of well-known providers (--models: all).")
    yield from check_prices(lambda model: estimated_cost(model, input_tokens=1_000, output_tokens=1_000))


def check_models_by_litellm() -> Iterator[Said]:
    """Check that litellm knows the models and finds their keys. No model is called."""
    loading = importlib.import_module("durable_agents.llm.litellm.loading")
    yield from _for_each_model(loading.problem_with, "litellm knows every model and finds every key.")
    yield from check_prices(lambda model: loading.cost_of(model, prompt_tokens=1_000, completion_tokens=1_000))


def check_prices(cost_of: Callable[[str], Decimal | None]) -> Iterator[Said]:
    """Check that the price of each model is known. Models on the project's own servers need no price.

    ``cost_of`` takes the name of a model, and returns the cost of a sample call, or None if the price is unknown.
    """
    if config().model_door not in DOORS:
        return
    unknown = [(agent, model) for agent in registry.all() for model in agent.models if cost_of(model) is None]
    own = {model for agent, model in unknown if OWN_SERVER & set(agent.model_settings) or provider_of(model) in LOCAL}
    others = {model for _, model in unknown} - own
    if own:
        yield (
            "ok",
            f"These models of your own servers have no price, so their cost is not known: {', '.join(sorted(own))}.",
            "",
        )
    if others:
        text = (
            f"litellm's price list does not have these models, so their cost is not known: {', '.join(sorted(others))}."
        )
        hint = "Correct the names, upgrade litellm, or register their prices in the workers (litellm.register_model)."
        yield "warning", text, hint


def _for_each_model(problem_with: Callable[[str], str], fine: str) -> Iterator[Said]:
    agents = registry.all()
    if not agents:
        hint = (
            "Declare one in the agents.py of an installed app; startproject does not install the project's own folder."
        )
        yield "warning", "No agent is declared.", hint
        return
    if config().model_door not in DOORS:
        yield "ok", f"Models are called through {config().model_door}.", ""
        return
    if config().model_door != "litellm":
        yield from _doors(agents)
    # Skip agents with an API key or a server in their settings. The server might need no API key.
    with_own_key = {"api_key", *OWN_SERVER}
    asked = [
        (agent, model) for agent in agents for model in agent.models if not with_own_key & set(agent.model_settings)
    ]
    problems = [(agent.name, model, problem_with(model)) for agent, model in asked]
    for name, model, problem in problems:
        if problem:
            hint = "Set it where the workers run, or give api_key in model_settings. Model names: docs.litellm.ai."
            yield "warning", f"Agent {name!r}, model {model!r}: {problem}.", hint
    if not any(problem for _, _, problem in problems):
        yield "ok", fine, ""


def _doors(agents: Sequence[Agent]) -> Iterator[Said]:
    """Report which agents call their provider's API directly, and why the others need litellm."""
    direct: list[str] = []
    for agent in agents:
        for model in agent.models:
            reason = reason_for_litellm(model, agent.model_settings, agent.provider_tools)
            if not reason:
                direct.append(agent.name)
            elif config().model_door == "auto":
                yield "ok", f"litellm calls model {model!r} of agent {agent.name!r}: {reason}.", ""
            else:
                text = f"Model {model!r} of agent {agent.name!r} cannot be called without litellm: {reason}."
                yield "error", text, 'Set DURABLE_AGENTS["MODEL_DOOR"] to "auto" or "litellm".'
    if direct:
        yield "ok", f"These agents call their models directly, without litellm: {', '.join(dict.fromkeys(direct))}.", ""
