"""What the doctor looks at, one function an area, and what it says of it: every problem with what to do about it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from asgiref.sync import async_to_sync
from django.core.checks import ERROR, WARNING
from django.core.checks.registry import registry as check_registry
from django.db import DatabaseError, connections, router
from django.db.migrations.executor import MigrationExecutor
from django.db.models.functions import Now
from django.utils import timezone

from durable_agents.agents import registry
from durable_agents.conf import cluster_of, config, default_cluster, q_cluster
from durable_agents.lifecycle import database
from durable_agents.models import Pool, Stream, ToolCall, calls_of, streams_of
from durable_agents.outbound import layer_crosses_processes
from durable_agents.outbound.inspection import clusters_seen, layer_round_trip, queue_size, sweep_facts

Level = Literal["ok", "warning", "error"]

OVERDUE_SECONDS = 60.0
CLOCK_SECONDS = 5.0
ROUND_TRIP_SECONDS = 1.0
OLDEST_POSTGRESQL = 14
OLDEST_SQLITE = (3, 35)

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
"""Where litellm looks for the keys of well-known providers."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at: how it stands, and for a problem what to do."""

    area: str
    level: Level
    text: str
    hint: str = ""


Said = tuple[Level, str, str]
"""A finding without its area: level, text, hint."""


def examine(*, models: bool = False) -> list[Finding]:
    """Look at everything; with ``models`` also ask litellm, which takes seconds to import. No area stops another."""
    areas: list[tuple[str, Callable[[], Iterator[Said]]]] = [
        ("package", _package),
        ("settings", _settings),
        ("database", _database),
    ]
    found = [finding for area, look in areas for finding in _looked(area, look)]
    if any(finding.area == "database" and finding.level == "error" for finding in found):
        areas = [("channel layer", _channel_layer)]
    else:
        areas = [("broker", _broker), ("sweep", _sweep), ("channel layer", _channel_layer), ("workers", _workers)]
    areas.append(("models", _models_by_litellm if models else _models))
    return found + [finding for area, look in areas for finding in _looked(area, look)]


def _looked(area: str, look: Callable[[], Iterator[Said]]) -> list[Finding]:
    found: list[Finding] = []
    try:
        for level, text, hint in look():
            found.append(Finding(area=area, level=level, text=text, hint=hint))
    except Exception as error:
        text = f"could not be looked at: {type(error).__name__}: {error}"
        found.append(Finding(area=area, level="error", text=text))
    return found


# ----------------------------------------------------------------------------------------------------------- package


def _package() -> Iterator[Said]:
    try:
        other = version("durable-agents")
    except PackageNotFoundError:
        yield "ok", f"django-durable-agents {_own_version()}", ""
        return
    text = f'The distribution "durable-agents" ({other}) is installed: another project, which imports under our name.'
    yield "error", text, "pip uninstall durable-agents && pip install --force-reinstall django-durable-agents"


def _own_version() -> str:
    try:
        return version("django-durable-agents")
    except PackageNotFoundError:
        return "(not installed: run from its sources)"


# ---------------------------------------------------------------------------------------------------------- settings


def _settings() -> Iterator[Said]:
    """The package's own system checks, and limits of the queue that harm the project's tasks."""
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
    for said in _queue_limits():
        problems += 1
        yield said
    if not problems:
        yield "ok", "The system checks find nothing.", ""


def _queue_limits() -> Iterator[Said]:
    retry, timeout = q_cluster().get("retry", 60), q_cluster().get("timeout")
    if timeout is not None and retry <= timeout:
        text = f"Q_CLUSTER has retry {retry} and timeout {timeout}: tasks of your own may run twice at once."
        yield "warning", text, f'Set Q_CLUSTER["retry"] above the timeout, for example {timeout + 60}.'
    if timeout is None:
        text = "Q_CLUSTER has no timeout: a task of your own that takes longer than its retry runs twice at once."
        yield "warning", text, 'Set "timeout" in Q_CLUSTER, and "retry" above it. Agents are not bound by either.'


# ---------------------------------------------------------------------------------------------------------- database


def _database() -> Iterator[Said]:
    connection = connections[database()]
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        text = f"The database {connection.alias!r} does not answer: {error}"
        yield "error", text.strip(), f'Start it, or mend DATABASES["{connection.alias}"].'
        return
    if connection.vendor == "postgresql":
        yield from _postgresql(connection)
    elif connection.vendor == "sqlite":
        yield from _sqlite(connection)
    unapplied = list(_unapplied())
    if unapplied:
        more = f" and {len(unapplied) - 3} more" if len(unapplied) > 3 else ""
        text = f"Migrations are not applied: {', '.join(unapplied[:3])}{more}."
        yield "error", text, "Run: manage.py migrate"
        return
    yield from _pools()


def _postgresql(connection: Any) -> Iterator[Said]:
    major = connection.pg_version // 10_000
    if major < OLDEST_POSTGRESQL:
        yield "error", f"PostgreSQL {major} is too old.", f"Use PostgreSQL {OLDEST_POSTGRESQL} or newer."
    else:
        yield "ok", f"PostgreSQL {major}", ""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        [theirs] = cursor.fetchone()
    apart = abs((theirs - timezone.now()).total_seconds())
    if apart > CLOCK_SECONDS:
        text = f"The clocks of the database and of this host are {apart:.0f} s apart."
        yield "warning", text, "Leases go by the database's clock, django-q2 by each host's: run NTP on both."


def _sqlite(connection: Any) -> Iterator[Said]:
    found = connection.Database.sqlite_version_info
    name = f"SQLite {connection.Database.sqlite_version}"
    with connection.cursor() as cursor:
        [journal] = cursor.execute("PRAGMA journal_mode").fetchone()
    if found < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        yield "error", f"{name} is too old.", f"Use a Python with SQLite {oldest} or newer."
    elif journal not in {"wal", "memory"}:
        text = f"{name} keeps its journal as {journal!r}, so readers and writers wait for each other."
        yield "warning", text, 'Put "PRAGMA journal_mode=WAL;" into the init_command of its OPTIONS.'
    else:
        yield "ok", f"{name}, journal {journal}", ""


def _unapplied() -> Iterator[str]:
    """Migrations of ours, and of the queue's on its database, that are not applied."""
    schedule = importlib.import_module("django_q.models").Schedule
    for app, alias in (("durable_agents", database()), ("django_q", router.db_for_write(schedule))):
        executor = MigrationExecutor(connections[alias])
        leaves = executor.loader.graph.leaf_nodes(app)
        yield from (f"{step.app_label} {step.name}" for step, _ in executor.migration_plan(leaves))


def _pools() -> Iterator[Said]:
    rows = dict(Pool.objects.using(database()).values_list("name", "limit"))
    stale = sorted(name for name, pool in config().pools.items() if rows.get(name) != pool.limit)
    if stale:
        text = f"The pools {', '.join(stale)} do not stand in the database as in the settings."
        yield "warning", text, "They are brought in line when a worker starts, and by manage.py migrate."


# ------------------------------------------------------------------------------------------------------------- queue


def _clusters() -> list[str]:
    return sorted({cluster_of(pool) for pool in config().pools})


def _broker() -> Iterator[Said]:
    for cluster in _clusters():
        try:
            size = queue_size(cluster)
        except Exception as error:
            text = f"The broker of cluster {cluster!r} does not answer: {type(error).__name__}: {error}"
            hint = "Start it, or mend Q_CLUSTER. Until then only the sweep and busy workers find what is due."
            yield "error", text, hint
        else:
            yield "ok", f"Cluster {cluster!r}: {size} tasks wait in the queue.", ""


def _sweep() -> Iterator[Said]:
    facts = sweep_facts()
    if facts is None:
        text = "The sweep is not scheduled: a thread whose worker died may wait until somebody looks at it."
        yield "error", text, "Run: manage.py migrate (or start a worker, which schedules it)."
    elif facts.is_switched_off:
        text = "The schedule of the sweep has used up its repeats: it never runs again."
        yield "error", text, 'Delete the schedule "durable_agents sweep" in the admin and run: manage.py migrate'
    elif not facts.cluster_is_right:
        text = f"The sweep is scheduled on another cluster than that of agents, {cluster_of('agents')!r}."
        yield "warning", text, "Run: manage.py migrate"
    elif facts.is_late:
        text = f"The sweep should have run {facts.late_by.total_seconds():.0f} s ago, and nobody runs it."
        yield "warning", text, f"Run: {_start(cluster_of('agents'))}"
    else:
        yield "ok", "The sweep runs on schedule." if facts.has_run else "The sweep is scheduled.", ""


def _start(cluster: str) -> str:
    command = "manage.py qcluster"
    return command if cluster == default_cluster() else f"Q_CLUSTER_NAME={cluster} {command}"


def _channel_layer() -> Iterator[Said]:
    if not layer_crosses_processes():
        yield "ok", "The channel layer stays in its process: web processes ask the database for their browsers.", ""
        return
    try:
        async_to_sync(layer_round_trip)(ROUND_TRIP_SECONDS)
    except Exception as error:
        text = f"The channel layer does not carry a message: {type(error).__name__}: {error}"
        yield "error", text.rstrip(": "), "Start its server, or mend CHANNEL_LAYERS. Browsers see news late without it."
    else:
        yield "ok", "The channel layer carries messages.", ""


# ----------------------------------------------------------------------------------------------------------- workers


@dataclass(frozen=True, kw_only=True)
class _Load:
    """What the rows say of one pool."""

    held: int
    """Rows under a live lease."""
    waiting: int
    """Rows that a worker with this code should have claimed long ago."""
    unknown: Sequence[str]
    """Agents and tools that such rows want and that this code does not have."""


def _load(pool: str) -> _Load:
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
    return _Load(held=held, waiting=waiting, unknown=sorted(unknown))


def _workers() -> Iterator[Said]:
    facts = sweep_facts()
    sweeps = facts is not None and facts.has_run and not facts.is_late
    seen = _clusters_seen() if _clusters() == [default_cluster()] and not q_cluster().get("ALT_CLUSTERS") else 0
    for cluster in _clusters():
        loads = {pool: _load(pool) for pool in config().pools_of(cluster)}
        problems = [said for pool, load in loads.items() for said in _overload(cluster, pool, load)]
        yield from problems
        is_alive = seen or any(load.held for load in loads.values()) or (sweeps and cluster == cluster_of("agents"))
        if is_alive:
            held = sum(load.held for load in loads.values())
            yield "ok", f"Cluster {cluster!r} is alive; its workers hold {held} rows.", ""
        elif not any(level == "error" for level, _, _ in problems):
            text = f"There is no sign of a worker of cluster {cluster!r}, which serves {', '.join(loads)}."
            yield "warning", text, f"Run: {_start(cluster)}"


def _overload(cluster: str, pool: str, load: _Load) -> Iterator[Said]:
    limit = config().pool(pool).limit
    if load.unknown:
        text = f"In pool {pool!r} rows wait for code that is not here: {', '.join(load.unknown)}."
        yield "warning", text, "Deploy it, or leave them: after UNKNOWN_CODE_GRACE_SECONDS they are settled as failed."
    if load.waiting and load.held >= limit:
        text = f"The pool {pool!r} is full: {load.held} rows are held, {load.waiting} have waited for over a minute."
        yield "warning", text, f'Raise its limit in DURABLE_AGENTS["POOLS"] (now {limit}), and add workers.'
    elif load.waiting:
        text = f"In pool {pool!r} {load.waiting} rows have been due for over a minute and nobody takes them."
        yield "error", text, f"Run: {_start(cluster)}"


def _clusters_seen() -> int:
    """How many clusters django-q2 sees, whatever their names are; zero where it cannot say."""
    try:
        return clusters_seen()
    except Exception:
        return 0  # the broker's own finding says why


# ------------------------------------------------------------------------------------------------------------ models


def _models() -> Iterator[Said]:
    """By the environment alone: whether the usual keys are there."""
    yield from _for_each_model(_missing_key, "Every model's key is there, as far as can be told (ask with --models).")


def _models_by_litellm() -> Iterator[Said]:
    """By what litellm knows, without a call."""
    problem_with = importlib.import_module("durable_agents.llm.loading").problem_with
    yield from _for_each_model(problem_with, "litellm knows every model, and every key is there.")


def _for_each_model(problem_with: Callable[[str], str], fine: str) -> Iterator[Said]:
    agents = registry.all()
    if not agents:
        yield "warning", "No agent is declared.", "Declare one in the agents.py of an installed app."
        return
    if config().model_door != "durable_agents.llm.LiteLLMDoor":
        yield "ok", f"Models are called through {config().model_door}.", ""
        return
    with_own_key = {"api_key", "api_base", "base_url"}
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


def _missing_key(model: str) -> str:
    key = KEYS.get(model.partition("/")[0])
    return f"the environment has no {key}" if key is not None and not os.environ.get(key) else ""
