"""What a step costs in statements, transactions, rows and bytes: counted in a real worker, never timed.

`pytest -s tests/engine/test_counts.py` prints the counts. A change that lowers one lowers its limit here.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from durable_agents import create_thread, llm, tool
from durable_agents.conf import default_cluster
from durable_agents.engine import tool_slots
from durable_agents.engine import worker as worker_module
from durable_agents.engine.worker import Worker
from durable_agents.lifecycle import statements
from durable_agents.llm import ModelEvent, ModelRequest
from durable_agents.models import Thread
from durable_agents.testing.no_notifications import notifications_muted
from tests.benchmarks.doors import NullDoor
from tests.benchmarks.model_process import Plan
from tests.servers.postgres import PostgresUnderTest
from tests.testing.shop import opened

NAMES = ("statements", "transactions", "rows written", "bytes sent", "WAL bytes")
LIMITS = {
    # Database and threads at once: what one step may cost, a step being a model call and the tool that it calls.
    ("sqlite", 1): (12, 2.3, 6.5, 15_000, 0),
    ("sqlite", 50): (2.5, 0.35, 7.8, 6_000, 0),
    ("postgresql", 1): (12, 2.3, 6.5, 16_000, 5_000),
    ("postgresql", 50): (2.5, 0.35, 7.8, 6_500, 7_000),
}
STEPS = {1: 20, 50: 4}
"""Steps of each thread, so that what only happens once weighs little."""
TOGETHER_SECONDS = 10
WRITES = ("INSERT", "UPDATE", "DELETE", "WITH")


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class TogetherDoor(NullDoor):
    """Answers once as many threads wait for the same step: what can share a transaction then may."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.threads = threads
        self.waiting: Counter[int] = Counter()
        self.complete: dict[int, asyncio.Event] = {}

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """Wait for the others, then yield the answer."""
        step = sum(message["role"] == "tool" for message in request.messages)
        event = self.complete.setdefault(step, asyncio.Event())
        self.waiting[step] += 1
        if self.waiting[step] == self.threads:
            event.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), TOGETHER_SECONDS)
        async for item in super().stream(request):
            yield item


class Counts:
    """Counts what all connections but those of the test's own thread do."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.here = threading.get_ident()

    def add(self, name: str, amount: int) -> None:
        """Count something, unless the test itself has done it."""
        if threading.get_ident() != self.here:
            self.totals[name] += amount

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        """Count a statement; an execute wrapper of Django's."""
        result = execute(sql, params, many, context)
        if not sql.startswith(("BEGIN", "SAVEPOINT", "RELEASE")):
            several = sql.count("; ")  # sent in one message; ``counted`` counts what they write
            self.add("statements", 1 + several)
            self.add("bytes sent", len(sql) + len(repr(params)))
            if sql.startswith(WRITES) and not several:
                self.add("rows written", max(0, context["cursor"].rowcount))
        return result


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """Count on connections that are opened within the block."""
    counts, commit, execute_all = Counts(), BaseDatabaseWrapper.commit, statements.execute_all

    def counted_commit(self: BaseDatabaseWrapper) -> None:
        counts.add("transactions", 1)
        commit(self)

    def counted_execute(written: Sequence[statements.Statement], *, using: str) -> list[int]:
        rows = execute_all(written, using=using)
        if connections[using].vendor == "postgresql" and len(written) > 1:
            counts.add("rows written", sum(rows))
        return rows

    def install(connection: BaseDatabaseWrapper, **_: Any) -> None:
        connection.execute_wrappers.append(counts)

    monkeypatch.setattr(BaseDatabaseWrapper, "commit", counted_commit)
    monkeypatch.setattr(statements, "execute_all", counted_execute)
    connection_created.connect(install)
    try:
        yield counts
    finally:
        connection_created.disconnect(install)


def run(threads: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Run that many threads in a worker of this process; return the counts of a step."""
    # Looks that happen because time has passed are not part of a step.
    monkeypatch.setattr(worker_module, "CLAIM_SECONDS", 30.0, raising=False)
    # How many calls a worker holds depends on how fast its tools are, and so on the load of the machine.
    monkeypatch.setattr(tool_slots, "UNKNOWN_SECONDS", 0.0)
    monkeypatch.setattr(tool_slots, "WAIT_SECONDS", 60.0)
    steps = STEPS[threads]
    with (
        opened(name="counted", tools=[add]),
        llm.door_replaced(TogetherDoor(threads)),
        notifications_muted(),
        counted(monkeypatch) as counts,
    ):
        for number in range(threads):
            create_thread("counted", prompt=str(Plan(key=f"{number}", steps=steps)))
        written = wal_bytes()
        worker = Worker(default_cluster())
        worker.start()
        try:
            worker.work(slot=0)
        finally:
            for lane in (worker.runtime.in_database, worker.runtime.in_lease_lane):
                worker.runtime.loop.run_until_complete(lane(connections.close_all))
            worker.runtime.loop.close()
        written = wal_bytes() - written
    assert set(Thread.objects.values_list("status", flat=True)) == {"completed"}
    made = {name: total / threads / steps for name, total in counts.totals.items()}
    made |= {"WAL bytes": written / threads / steps} if written else {}
    print(
        f"\n{connection.vendor}, {threads} threads: " + ", ".join(f"{made[name]:.4g} {name}" for name in sorted(made))
    )
    return made


def wal_bytes() -> int:
    """Return how much WAL the server of the connection has written, 0 where there is none."""
    if connection.vendor != "postgresql":
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")
        return int(cursor.fetchone()[0])


def over(made: dict[str, float], threads: int) -> dict[str, float]:
    """Return the counts that are over their limits."""
    limits = dict(zip(NAMES, LIMITS[connection.vendor, threads], strict=True))
    return {name: count for name, count in made.items() if count > limits[name]}


@pytest.mark.parametrize("threads", STEPS)
def test_a_step_costs_no_more_than_its_limits(threads: int, transactional_db: None, monkeypatch: pytest.MonkeyPatch):
    """WAL is not looked at: others may use this server."""
    made = run(threads, monkeypatch)
    made.pop("WAL bytes", None)
    assert over(made, threads) == {}


@pytest.mark.parametrize("threads", STEPS)
def test_a_step_on_a_server_of_its_own_costs_no_more_than_its_limits(
    threads: int, own_postgres: PostgresUnderTest, monkeypatch: pytest.MonkeyPatch
):
    own_postgres.execute("ALTER SYSTEM SET full_page_writes = off")  # these depend on when checkpoints happen
    own_postgres.execute("SELECT pg_reload_conf()")
    made = run(threads, monkeypatch)
    assert made["WAL bytes"] > 0
    assert over(made, threads) == {}
