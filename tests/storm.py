"""A storm over running workers: python -m tests.storm [--seconds 300] [--every 3] [--postgres] [--keep FILE]

Thirty threads are kept busy with answers that stream and tools that take their time, on a cluster, a database and a
model server of its own. Every few seconds a worker is killed with SIGKILL, every fourth time all workers at once. Then
the storm is over, and every thread has to come to rest.

Printed is how long it took from each kill to the next progress of each thread that lost its worker, and what was lost,
doubled or left stuck. The exit code is 0 only if nothing was, and the waits are within their limits.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

P95_SECONDS, MAX_SECONDS = 10.0, 45.0
ALL_EVERY = 4
WORKERS = 4
STEPS = 3
REST_SECONDS = 90
LOOK_SECONDS = 0.1
SLOW_SECONDS = 5.0


@dataclass
class Storm:
    """What is asked for, and what came of it."""

    seconds: float
    every: float
    threads: int
    workers: int
    seed: int
    kills: list[tuple[float, int]] = field(default_factory=list)
    """When, and how many workers."""
    waits: list[float] = field(default_factory=list)
    """From a kill to the next progress of a thread that had a row with the killed, for each of both."""
    slow: list[str] = field(default_factory=list)
    """The long ones, as lines for the log."""
    turns: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Return the wait that this share of all waits do not exceed."""
        ordered = sorted(self.waits) or [0.0]
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def problems(self) -> list[str]:
        """What must not be."""
        found = [f"{name}: {what}" for name in ("lost", "doubled", "stuck") for what in getattr(self, name)[:10]]
        if not self.waits:
            found.append("no thread lost its worker: nothing was shown")
        if self.percentile(0.95) > P95_SECONDS:
            found.append(f"p95 is above {P95_SECONDS:g} s")
        if self.percentile(1) > MAX_SECONDS:
            found.append(f"the longest wait is above {MAX_SECONDS:g} s")
        return found

    def report(self) -> str:
        """Return the numbers as text."""
        at_all = sum(1 for _, count in self.kills if count > 1)
        killed = sum(count for _, count in self.kills)
        p50, p95, longest = (f"{self.percentile(share):.1f} s" for share in (0.5, 0.95, 1))
        lines = [
            f"{len(self.kills)} strikes in {self.seconds:g} s, {at_all} of them at all of {self.workers} workers",
            f"{killed} workers killed (seed {self.seed}); {len(self.waits)} times a thread lost its worker",
            f"{self.threads} busy threads, {self.turns} turns answered",
            f"from kill to progress: p50 {p50}, p95 {p95}, max {longest}",
            f"lost {len(self.lost)}, doubled {len(self.doubled)}, stuck {len(self.stuck)}",
        ]
        return "\n".join([*lines, *(f"VIOLATION {problem}" for problem in self.problems)])


class Progress:
    """Watches all threads from outside: when each got a delta, a committed step or an outcome of a tool."""

    def __init__(self) -> None:
        self.seen: dict[Any, list[float]] = {}
        self._signs: dict[Any, tuple[int, ...]] = {}
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> float:
        """Record the progress of every thread; return the time at which that was done."""
        with self._lock:
            self._look()
            return time.monotonic()

    def _look(self) -> None:
        from django.db.models import Count, Max, Q

        from durable_agents.models import Delta, Stream, ToolCall

        now = time.monotonic()
        deltas = dict(Delta.objects.values_list("stream__thread").annotate(newest=Max("pk")).order_by())
        steps = dict(Stream.objects.filter(state="finished").values_list("thread").annotate(n=Count("pk")).order_by())
        ended = Q(finished_at__isnull=False) & ~Q(error_code="crashed")
        calls = dict(ToolCall.objects.filter(ended).values_list("thread").annotate(n=Count("pk")).order_by())
        for thread in {*deltas, *steps, *calls}:
            before = self._signs.get(thread, (0, 0, 0))
            sign = max(deltas.get(thread, 0), before[0]), steps.get(thread, 0), calls.get(thread, 0)
            if sign != before:
                self._signs[thread] = sign
                self.seen.setdefault(thread, []).append(now)

    def next_after(self, thread: Any, moment: float) -> float | None:
        """Return when the thread got on for the first time after that moment."""
        return next((seen for seen in self.seen.get(thread, ()) if seen > moment), None)


def script(folder: Path) -> Any:
    """Return a model that has a tool called in each step but the last; what it says depends on the question."""
    from tests.crash.talk import asked, words
    from tests.servers.model import Call, Reply

    def answer(request: Any) -> Any:
        question = asked(request)
        told = told_since(request["messages"], question)
        text = words(30, f"{question}-{told}")
        if told == STEPS - 1:
            return Reply(text=text, delay_seconds=0.05)
        path = str(folder / f"{question}-{told}".replace(" ", "-"))
        if told % 2:
            call = Call(name="note", arguments={"path": path, "text": "ran", "seconds": 1})
        else:
            call = Call(name="note_again", arguments={"path": path, "seconds": 1})
        return Reply(text=text, calls=(call,), delay_seconds=0.05)

    return answer


def told_since(messages: list[dict[str, Any]], question: str) -> int:
    """Return how many results of tools come after a question."""
    place = max(number for number, it in enumerate(messages) if it["role"] == "user" and it["content"] == question)
    return sum(1 for it in messages[place:] if it["role"] == "tool")


def rage(storm: Storm, cluster: Any, folder: Path) -> dict[Any, list[str]]:
    """Keep the threads busy and strike, until the time is over; then wait until all is quiet. Returns what each thread
    was asked."""
    from durable_agents import create_thread, send_message
    from durable_agents.models import Thread

    chosen = random.Random(storm.seed)
    began = time.monotonic()
    threads = {create_thread("toolbox", prompt=f"q {n} 0"): [f"q {n} 0"] for n in range(storm.threads)}
    hit: list[tuple[float, float, set[Any]]] = []
    with Progress() as progress:
        strike_at = began + storm.every
        while time.monotonic() < began + storm.seconds:
            for thread in Thread.objects.filter(status="completed", pk__in=[one.pk for one in threads]):
                asked = threads[thread]
                asked.append(f"q {asked[0].split()[1]} {len(asked)}")
                send_message(thread, asked[-1])
            if time.monotonic() >= strike_at:
                strike_at += storm.every
                hit.append(strike(storm, cluster, chosen, progress))
            time.sleep(0.1)
        wait_for_rest([one.pk for one in threads], storm)
        time.sleep(2 * LOOK_SECONDS)
    ended = time.monotonic()
    for killed_at, looked_at, ids in hit:
        waits = {pk: (progress.next_after(pk, looked_at) or ended) - killed_at for pk in ids}
        storm.waits += waits.values()
        at = time.time() - time.monotonic() + killed_at
        storm.slow += [
            f"{at:.3f} SLOW thread={pk!s:.8} {wait:.1f} s" for pk, wait in waits.items() if wait > SLOW_SECONDS
        ]
    return {thread.pk: asked for thread, asked in threads.items()}


def strike(storm: Storm, cluster: Any, chosen: random.Random, progress: Progress) -> tuple[float, float, set[Any]]:
    """Kill a worker, or all. Returns when, when all that the killed had done was seen, and which threads had a row with
    them."""
    from durable_agents.models import Stream, ToolCall

    alive = sorted(cluster.workers)
    all_of_them = (len(storm.kills) + 1) % ALL_EVERY == 0
    pids = alive if all_of_them else [chosen.choice(alive)] if alive else []
    moment = time.monotonic()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    looked_at = progress.look()
    storm.kills.append((moment, len(pids)))
    rows = [*Stream.objects.held(), *ToolCall.objects.held()]
    return moment, looked_at, {row.thread_id for row in rows if int(row.lease_owner.split(":")[-2]) in pids}


def wait_for_rest(ids: list[Any], storm: Storm) -> None:
    """Wait until every thread is at rest; those that are not in time are stuck."""
    from durable_agents.models import Stream, Thread, ToolCall

    deadline = time.monotonic() + REST_SECONDS
    while Thread.objects.running().filter(pk__in=ids).exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    storm.stuck += [f"thread {thread.pk} is {thread.status}" for thread in Thread.objects.running()]
    storm.stuck += [f"{row} of thread {row.thread_id}" for row in Stream.objects.open()]
    storm.stuck += [f"{row} of thread {row.thread_id}" for row in ToolCall.objects.open()]


def judge(storm: Storm, asked: dict[Any, list[str]], folder: Path) -> None:
    """Find what was lost and what was doubled: every question has its one whole answer, in order; every call has its
    one outcome, and a plain tool ran once at most."""
    from durable_agents.models import Stream, Thread, ToolCall
    from tests.crash.talk import said, words

    for thread in Thread.objects.filter(pk__in=asked):
        spoken, expected = said(thread), []
        for question in asked[thread.pk]:
            expected += [("user", [question]), ("assistant", [words(30, f"{question}-{n}") for n in range(STEPS)])]
        if thread.status != "completed":
            storm.lost.append(f"thread {thread.pk} is {thread.status} ({thread.error_code})")
        elif spoken != expected:
            kind = storm.doubled if len(str(spoken)) > len(str(expected)) else storm.lost
            kind.append(f"thread {thread.pk} says something else than was answered")
        storm.turns += sum(1 for role, _ in spoken if role == "assistant")
    numbers = Counter(Stream.objects.filter(state="finished").values_list("message_id", flat=True))
    storm.doubled += [f"message {pk} has {count} steps" for pk, count in numbers.items() if count > STEPS]
    for call in ToolCall.objects.all():
        path = Path((call.arguments or {}).get("path", ""))
        ran = path.read_text(encoding="utf-8").split() if path.is_file() else []
        if call.tool_name == "note" and len(ran) > 1:
            storm.doubled.append(f"note ran {len(ran)} times: {path.name}")
        if call.tool_name == "note_again" and len(set(ran)) > 1:
            storm.doubled.append(f"note_again ran under {len(set(ran))} keys: {path.name}")
        if call.status == "completed" and not ran:
            storm.lost.append(f"{call.tool_name} has a result and never ran: {path.name}")
        if call.status not in {"completed", "unknown"}:
            storm.lost.append(f"{call.tool_name} is {call.status}: {path.name}")


@contextlib.contextmanager
def servers(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, str]]:
    """Start what the storm needs; give the environment of processes that use it."""
    with contextlib.ExitStack() as stack:
        env = {"TEST_DATABASE_URL": f"sqlite:///{folder / 'storm.sqlite3'}", "TEST_REDIS_URL": ""}
        if options.postgres:
            database = stack.enter_context(own_database())
            from tests.servers.redis import RedisUnderTest

            queue = RedisUnderTest(folder).start()
            stack.callback(queue.kill)
            env = {"TEST_DATABASE_URL": database.url, "TEST_REDIS_URL": queue.url}
        yield env


@contextlib.contextmanager
def own_database() -> Iterator[Any]:
    """Start a PostgreSQL with an empty database."""
    from tests.servers import postgres

    with tempfile.TemporaryDirectory(prefix="durable-agents-postgres-", ignore_cleanup_errors=True) as name:
        data = postgres.owned_by_server_user(Path(name)) / "data"
        make = [postgres.binary("initdb"), "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C"]
        subprocess.run(make, check=True, capture_output=True, cwd=name, **postgres.as_server_user())
        server = postgres.PostgresUnderTest(data).start()
        try:
            server.execute(f"CREATE DATABASE {postgres.DATABASE}")
            yield server
        finally:
            server.stop("immediate")


def weather(storm: Storm, env: dict[str, str], folder: Path) -> None:
    """Prepare the database that this process uses as well, start the cluster, and let it come."""
    from django.core.management import call_command
    from django.db import connections

    from tests.servers.model import ModelUnderTest
    from tests.workers import running

    call_command("migrate", verbosity=0)
    notes = folder / "notes"
    notes.mkdir()
    settings = {"TEST_DURABLE_AGENTS": json.dumps({"TOOL_THREADS": 30})}
    with ModelUnderTest(script(notes)) as model:
        connections.close_all()
        with running(env, workers=storm.workers, TEST_MODEL_URL=model.url, **settings) as cluster:
            asked = rage(storm, cluster, notes)
            (folder / "cluster.log").write_text("\n".join([cluster.log, *storm.slow]))
        judge(storm, asked, notes)
        connections.close_all()


def main() -> int:
    """Run a storm and report on it."""
    parser = argparse.ArgumentParser(description="Kill workers without end, and see what becomes of thirty threads.")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--every", type=float, default=3, help="seconds between two strikes")
    parser.add_argument("--threads", type=int, default=30)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL and a Redis of its own, not SQLite")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the report into this file as well")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the cluster's log")
    options = parser.parse_args()
    storm = Storm(
        seconds=options.seconds,
        every=options.every,
        threads=options.threads,
        workers=options.workers,
        seed=options.seed,
    )
    with tempfile.TemporaryDirectory(prefix="durable-agents-storm-") as name, servers(options, Path(name)) as env:
        os.environ.update(env, DJANGO_SETTINGS_MODULE="tests.settings")
        import django

        django.setup()
        here = str(Path(__file__).parent.parent)
        weather(storm, {**os.environ, "PYTHONPATH": here, "PYTHONUNBUFFERED": "1"}, Path(name))
        if options.log:
            options.log.write_text((Path(name) / "cluster.log").read_text())
        report = f"{heading('Storm')}\n\n{storm.report()}\n"
    print(report)
    if options.keep:
        options.keep.write_text(report, encoding="utf-8")
    return 1 if storm.problems else 0


def heading(name: str) -> str:
    """Return what was run when, and on what."""
    from tests.proof import commit, database

    return (
        f"{name}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit()}\n"
        f"Python {platform.python_version()}, {database()}; {os.cpu_count()} processors"
    )


if __name__ == "__main__":
    sys.exit(main())
