"""What is measured: this project's workers, and loops that do the same without it."""

import contextlib
import json
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.meters import NoMeter, PostgresMeter
from tests.benchmarks.model_process import Exchange, Plan
from tests.benchmarks.servers import ROOT, Database, ModelProcess

WORKERS = 2
POLL_SECONDS = 0.004


class Contender(ABC):
    """Something that runs threads in worker processes."""

    name: str
    meter: PostgresMeter | NoMeter = NoMeter()
    role = ""
    """The database role of the workers."""
    is_durable = False
    """Whether threads go on after all workers were killed."""

    @abstractmethod
    def start(self) -> None:
        """Start the workers."""

    @abstractmethod
    def wait_until_ready(self) -> None:
        """Wait until the workers are ready."""

    @abstractmethod
    def stop(self) -> None:
        """End the workers."""

    @abstractmethod
    def pids(self) -> list[int]:
        """Return the processes that do the work, without those below them."""

    @abstractmethod
    def run(self, plans: Sequence[Plan], *, together: bool) -> list[float]:
        """Run a thread for each plan, at once or one after the other; return the seconds that each took."""

    @abstractmethod
    def kill(self) -> None:
        """End the workers at once, as a machine that loses its power does."""

    @abstractmethod
    def begin(self, plans: Sequence[Plan]) -> None:
        """Begin a thread for each plan, without waiting."""

    @abstractmethod
    def finish(self, plans: Sequence[Plan]) -> None:
        """Wait for the threads that were begun, also where the workers were killed and started again meanwhile."""

    def counts(self) -> dict[str, int]:
        """Return the statements of the workers so far, where they count them themselves."""
        return {}

    def stored_tokens(self, plans: Sequence[Plan]) -> int | None:
        """Return how many tokens of these threads' answers are stored, None where nothing is."""
        return None

    def committed_steps(self, plans: Sequence[Plan]) -> dict[str, int] | None:
        """Return how many model calls of each thread are stored, None where that cannot be told."""
        return None

    @abstractmethod
    def journal(self) -> list[Exchange]:
        """Return the model calls since `empty_journal`."""

    @abstractmethod
    def empty_journal(self) -> None:
        """Forget the model calls so far."""


class Loop(Contender):
    """Worker processes that read plans from their standard input: the bare loops and the other frameworks."""

    def __init__(
        self,
        name: str,
        model: ModelProcess,
        *,
        command: Sequence[str],
        env: dict[str, str],
        database: Database | None = None,
    ) -> None:
        self.name = name
        self.is_durable = database is not None
        if database is not None:
            self.meter, self.role = database.peers_meter, database.peers_role
        self.model = model
        self.command = [sys.executable, "-m", *command]
        self.env = env
        self.processes: list[Any] = []

    def start(self) -> None:
        """Start the workers."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        commands = [[*self.command, *([str(number)] if self.is_durable else [])] for number in range(WORKERS)]
        self.processes = [subprocess.Popen(command, cwd=ROOT, env=self.env, **pipes) for command in commands]

    def wait_until_ready(self) -> None:
        """Wait for their first line."""
        for process in self.processes:
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"{self.name} does not start")

    def stop(self) -> None:
        """End their input, and them where that does not."""
        for process in self.processes:
            with contextlib.suppress(OSError):
                process.stdin.close()
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
            process.stdout.close()
        self.processes = []

    def pids(self) -> list[int]:
        """Return the workers."""
        return [process.pid for process in self.processes]

    def kill(self) -> None:
        """SIGKILL to each."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait(5)
            process.stdin.close()
            process.stdout.close()
        self.processes = []

    def run(self, plans: Sequence[Plan], *, together: bool) -> list[float]:
        """Share the plans among the workers, or give them to the first."""
        busy = self.order(plans, together=together)
        return [seconds for process in busy for seconds in json.loads(process.stdout.readline())["seconds"]]

    def order(self, plans: Sequence[Plan], *, together: bool) -> list[Any]:
        """Tell the workers what to do; return those that will answer."""
        shares = [plans[number::WORKERS] for number in range(WORKERS)] if together else [plans]
        busy = list(zip(self.processes, shares, strict=False))
        for process, share in busy:
            order = {"plans": [str(plan) for plan in share], "together": together}
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        return [process for process, _ in busy]

    def begin(self, plans: Sequence[Plan]) -> None:
        """Give the plans to the workers."""
        self.order(plans, together=True)

    def finish(self, plans: Sequence[Plan]) -> None:
        """Give the plans again: the workers know by a plan's key what they have stored."""
        self.run(plans, together=True)

    def journal(self) -> list[Exchange]:
        """Ask the model server."""
        return self.model.journal()

    def empty_journal(self) -> None:
        """Empty the model server's."""
        self.model.empty_journal()


class Ours(Contender):
    """`manage.py qcluster` on a database of its own."""

    is_durable = True

    def __init__(self, name: str, model: ModelProcess, database: Database, env: dict[str, str], calls: Path) -> None:
        self.name = name
        self.model = model
        self.meter = database.meter
        self.role = database.worker_role
        self.env = {**env, "TEST_DATABASE_URL": database.worker_url, "TEST_MODEL_URL": model.url}
        self.env["BENCHMARK_JOURNAL"] = str(calls)
        self.calls = calls
        self.counted = calls.with_name("statements")
        if not self.meter.has_statements:
            self.counted.mkdir()
            self.env["TEST_COUNT_STATEMENTS"] = str(self.counted)
        self.cluster: Any = None
        self.ids: dict[str, Any] = {}
        """The thread of each plan, by its key."""

    def start(self) -> None:
        """Start the cluster."""
        from tests.workers import Cluster

        self.cluster = Cluster(self.env, TEST_WORKERS=str(WORKERS))

    def wait_until_ready(self) -> None:
        """Wait for the lines of both workers in the cluster's log."""
        self.cluster.wait_until_ready(WORKERS)

    def stop(self) -> None:
        """Stop the cluster."""
        if self.cluster is not None:
            self.cluster.stop()
            self.cluster = None

    def pids(self) -> list[int]:
        """Return the cluster's main process."""
        return [self.cluster.process.pid]

    def kill(self) -> None:
        """SIGKILL to every process of the cluster."""
        self.cluster.kill_all()

    def run(self, plans: Sequence[Plan], *, together: bool) -> list[float]:
        """Send a message to a new thread for each plan."""
        if not together:
            return [self.run_one(plan) for plan in plans]
        started = time.monotonic()
        self.begin(plans)
        self.finish(plans)
        return [time.monotonic() - started]

    def begin(self, plans: Sequence[Plan]) -> None:
        """Create the threads."""
        for plan in plans:
            self.send(plan)

    def finish(self, plans: Sequence[Plan]) -> None:
        """Wait until they are at rest."""
        self.wait([self.ids[plan.key] for plan in plans])

    def run_one(self, plan: Plan) -> float:
        """Return the seconds from the send to the thread at rest."""
        started = time.monotonic()
        self.send(plan)
        self.finish([plan])
        return time.monotonic() - started

    def send(self, plan: Plan) -> None:
        """Create a thread whose first message is the plan."""
        from durable_agents import create_thread

        self.ids[plan.key] = create_thread("bench", prompt=str(plan)).pk

    def counts(self) -> dict[str, int]:
        """Read the files of the workers."""
        from tests.project.statement_counts import totals

        return totals(self.counted) if self.counted.exists() else {}

    def stored_tokens(self, plans: Sequence[Plan]) -> int:
        """Return how many words there are in the text of the finished attempts."""
        from durable_agents.models import Stream

        ids = [self.ids[plan.key] for plan in plans]
        texts = Stream.objects.filter(thread__in=ids, state="finished").values_list("text", flat=True)
        return sum(len(text.split()) for text in texts)

    def committed_steps(self, plans: Sequence[Plan]) -> dict[str, int]:
        """Return the number of finished attempts of each thread."""
        from django.db.models import Count

        from durable_agents.models import Stream

        ids = {self.ids[plan.key]: plan.key for plan in plans}
        finished = Stream.objects.filter(thread__in=ids, state="finished").values_list("thread").annotate(Count("pk"))
        return {plan.key: 0 for plan in plans} | {ids[thread]: count for thread, count in finished}

    def wait(self, ids: Sequence[Any], *, seconds: float = 300) -> None:
        """Wait until all are at rest; raise where one has failed or takes longer.

        The pause between two looks grows with the time, so that looking is cheap and two per cent exact.
        """
        from durable_agents.models import Thread

        started = time.monotonic()
        running, of_these = Thread.objects.running(), {"pk": ids[0]} if len(ids) == 1 else {"agent": "bench"}
        while running.filter(**of_these).exists():
            if (elapsed := time.monotonic() - started) > seconds:
                raise TimeoutError(
                    f"{running.filter(**of_these).count()} threads still run: {self.cluster.log[-3000:]}"
                )
            time.sleep(max(POLL_SECONDS, elapsed * 0.02))
        wrong = Thread.objects.filter(pk__in=ids).exclude(status="completed").values_list("status", "error_code")
        if wrong:
            raise RuntimeError(f"threads ended otherwise: {set(wrong)}")

    def journal(self) -> list[Exchange]:
        """Return the model server's, or that of the null door."""
        lines = self.calls.read_text(encoding="utf-8").splitlines() if self.calls.exists() else []
        return [Exchange(**json.loads(line)) for line in lines] or self.model.journal()

    def empty_journal(self) -> None:
        """Empty both."""
        self.model.empty_journal()
        if self.calls.exists():
            self.calls.write_text("", encoding="utf-8")
