"""The loads: each function has a contender do something and returns figures per step, by name."""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.contenders import Contender
from tests.benchmarks.meters import DatabaseCosts, HostTimes, Sampler, cpu_seconds, pss_bytes, tree_cpu_seconds
from tests.benchmarks.model_process import Exchange, Plan

Figures = dict[str, float | None]
Load = Callable[[Contender, int, argparse.Namespace], Figures]

_runs = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run took and cost."""

    wall: float
    seconds: list[float]
    """Of each thread, where threads ran one after the other."""
    workers: float
    """CPU seconds of the workers; the others likewise."""
    sender: float
    model: float
    database: DatabaseCosts
    counted: dict[str, int]
    """Statements that the workers have counted themselves, where the server does not."""
    host: dict[str, float]
    journal: list[Exchange]


def measured(contender: Contender, model_pid: int, run: Callable[[], list[float]]) -> Cost:
    """Run something and return what it cost."""
    contender.empty_journal()
    contender.meter.start()
    counts = contender.counts()
    host, workers, model = HostTimes.now(), cpu_seconds(contender.pids()), tree_cpu_seconds(model_pid)
    sender, started = time.process_time(), time.monotonic()
    seconds = run()
    wall, sender = time.monotonic() - started, time.process_time() - sender
    counted = {name: count - counts[name] for name, count in contender.counts().items()}
    return Cost(
        counted=counted,
        wall=wall,
        seconds=seconds,
        workers=cpu_seconds(contender.pids()) - workers,
        sender=sender,
        model=tree_cpu_seconds(model_pid) - model,
        database=contender.meter.stop(),
        host=HostTimes.now().shares_since(host),
        journal=contender.journal(),
    )


def plans(count: int, **facts: Any) -> list[Plan]:
    """Return plans with keys that no other run has."""
    run = f"{os.getpid()}-{next(_runs)}"
    return [Plan(key=f"{run}-{number}", **facts) for number in range(count)]


def warm_up(contender: Contender) -> None:
    """Have every worker make its first calls."""
    contender.run(plans(16, steps=2), together=True)
    contender.run(plans(1, steps=2), together=False)


def one(contender: Contender, model_pid: int, options: argparse.Namespace) -> Figures:
    """Threads one after the other, for so many seconds: what lies between two model calls, and what a step costs."""

    def run() -> list[float]:
        took, ends = [], time.monotonic() + options.seconds
        while time.monotonic() < ends or len(took) < 2:
            took += contender.run(plans(1, steps=options.steps), together=False)
        return took

    cost = measured(contender, model_pid, run)
    gaps = gaps_ms(cost.journal)
    return {
        "gap ms": statistics.median(gaps),
        "gap p90 ms": statistics.quantiles(gaps, n=10)[-1],
        "thread ms": statistics.median(cost.seconds) * 1000,
        **per_unit(cost, contender, len(cost.seconds) * options.steps),
    }


def many(contender: Contender, model_pid: int, options: argparse.Namespace) -> Figures:
    """Threads at once, each with so many steps: how many steps are made in a second, and what a step costs."""
    batch = plans(options.threads or 200, steps=options.steps)
    steps = len(batch) * options.steps
    cost = measured(contender, model_pid, lambda: contender.run(batch, together=True))
    return {"steps/s": steps / cost.wall, **per_unit(cost, contender, steps)}


def streams(contender: Contender, model_pid: int, options: argparse.Namespace) -> Figures:
    """Threads at once, each with two answers of 40 tokens in two seconds and a tool between them."""
    batch = plans(options.threads or 200, steps=1, tokens=40, token_ms=50)
    with Sampler(lambda: pss_bytes(contender.pids()), every=1) as memory:
        cost = measured(contender, model_pid, lambda: contender.run(batch, together=True))
    stored = contender.stored_tokens(batch)
    return {
        "wall s": cost.wall,
        "memory MB": memory.peak() / 1e6,
        "open at once": most_at_once(cost.journal),
        "tokens lost": None if stored is None else len(batch) * 2 * 40 - stored,
        **per_unit(cost, contender, len(batch)),
    }


def tokens(contender: Contender, model_pid: int, options: argparse.Namespace) -> Figures:
    """50 answers at once, a token every 20 ms, for so many seconds: microseconds of CPU for a token."""
    count = int(options.seconds * 50)
    batch = plans(options.threads or 50, steps=0, tokens=count, token_ms=20)
    cost = measured(contender, model_pid, lambda: contender.run(batch, together=True))
    stored = contender.stored_tokens(batch)
    names = ("worker CPU", "model CPU", "database CPU")
    costs = per_unit(cost, contender, len(batch) * count)
    return {
        "wall s": cost.wall,
        "tokens lost": None if stored is None else len(batch) * count - stored,
        **{f"{name} us": None if (ms := costs[f"{name} ms"]) is None else ms * 1000 for name in names},
        **{name: value for name, value in costs.items() if "CPU" not in name},
    }


def long(contender: Contender, model_pid: int, options: argparse.Namespace) -> Figures:
    """One conversation of many tool steps: what a step costs at its beginning, after 50 and at its end."""
    steps = options.steps if options.steps > 20 else 200
    with (
        Sampler(lambda: cpu_seconds(contender.pids()), every=0.05) as cpu,
        Sampler(contender.meter.written_bytes, every=0.05) as written,
    ):
        cost = measured(contender, model_pid, lambda: contender.run(plans(1, steps=steps), together=False))
    came = [exchange.received_at for exchange in sorted(cost.journal, key=lambda exchange: exchange.step)]
    figures: Figures = {}
    for name, first in {"1": 0, "50": 45, str(steps): steps - 10}.items():
        start, end = came[first], came[min(first + 10, steps)]
        figures[f"ms at step {name}"] = (end - start) / 10 * 1000
        figures[f"worker CPU ms at step {name}"] = (cpu.at(end) - cpu.at(start)) / 10 * 1000
        figures[f"WAL bytes at step {name}"] = (written.at(end) - written.at(start)) / 10 or None
    last, begin = figures[f"worker CPU ms at step {steps}"], figures["worker CPU ms at step 1"]
    figures["CPU, last to first"] = last / begin if last and begin else None
    return {**figures, "thread s": cost.wall, **per_unit(cost, contender, steps)}


def kill(contender: Contender, model_pid: int, options: argparse.Namespace) -> Figures:
    """Kill all workers when 40 % of the tools have run, start them again: what was lost, done twice or waited for."""
    with tempfile.TemporaryDirectory(prefix="durable-agents-benchmark-") as folder:
        notes = Path(folder) / "notes"
        batch = plans(options.threads or 30, steps=options.steps, tool="note", path=str(notes))
        contender.empty_journal()
        contender.begin(batch)
        ends = time.monotonic() + 120
        while lines(notes) < 0.4 * len(batch) * options.steps and time.monotonic() < ends:
            time.sleep(0.01)
        killed_at = time.monotonic()
        contender.kill()
        committed = contender.committed_steps(batch)
        ran = lines(notes)
        contender.start()
        with Sampler(lambda: lines(notes), every=0.02) as tools:
            contender.wait_until_ready()
            ready_at = time.monotonic()
            contender.finish(batch)
        rested_at = time.monotonic()
        written = notes.read_text(encoding="utf-8").splitlines()
    journal = contender.journal()
    after = [exchange for exchange in journal if exchange.received_at > killed_at]
    progress = [exchange.received_at for exchange in after] + [when for when, count in tools.samples if count > ran]
    return {
        "first progress s": min(progress, default=rested_at) - killed_at,
        "workers ready s": ready_at - killed_at,
        "at rest s": rested_at - killed_at,
        "tools run twice": len(written) - len(set(written)),
        "tools not run": len(batch) * options.steps - len(set(written)),
        "calls repeated": len(journal) - len({(exchange.key, exchange.step) for exchange in journal}),
        **of_committed(journal, committed, killed_at),
    }


def of_committed(journal: Sequence[Exchange], committed: dict[str, int] | None, killed_at: float) -> Figures:
    """Return what happened to steps that were stored when the workers died, and to answers that were not."""
    if committed is None:
        return {}
    again = [item for item in journal if item.received_at > killed_at and item.step < committed[item.key]]
    lost = Counter(
        item.key
        for item in journal
        if item.ended_at is not None and item.ended_at <= killed_at and item.step >= committed[item.key]
    )
    return {
        "of stored steps": len(again),
        "answers lost": sum(lost.values()),
        "answers lost, a thread": max(lost.values(), default=0),
    }


def lines(path: Path) -> int:
    """Return how many lines a file has, 0 where there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def most_at_once(journal: Iterable[Exchange]) -> int:
    """Return how many answers were open at the same time at most."""
    changes = [(item.received_at, 1) for item in journal] + [(item.ended_at, -1) for item in journal if item.ended_at]
    return max(itertools.accumulate(change for _, change in sorted(changes)), default=0)


LOADS: dict[str, Load] = {
    "one": one,
    "many": many,
    "streams": streams,
    "tokens": tokens,
    "long": long,
    "kill": kill,
}


def title(load: Load) -> str:
    """Return what a load does, by the first line of its docstring."""
    return (load.__doc__ or "").splitlines()[0].rstrip(".")


def gaps_ms(journal: Iterable[Exchange]) -> list[float]:
    """Return the time from the end of each answer to the next request of the same thread."""
    last: dict[str, float] = {}
    gaps = []
    for exchange in sorted(journal, key=lambda exchange: exchange.received_at):
        if exchange.key in last:
            gaps.append((exchange.received_at - last[exchange.key]) * 1000)
        if exchange.ended_at is not None:
            last[exchange.key] = exchange.ended_at
    return gaps


def per_unit(cost: Cost, contender: Contender, units: int) -> Figures:
    """Return the costs of a step, or of whatever was done so many times; None for what was not measured."""

    def share(value: float | None, unit: float = 1) -> float | None:
        return None if value is None else value * unit / units

    kinds = ("statements", "transactions")
    counts = {kind: cost.counted.get(kind) or cost.database.count(kind, role=contender.role) for kind in kinds}
    # PostgreSQL runs these as the owner of the tables, whoever has written.
    counts["nested"] = cost.database.count("nested")
    return {
        "worker CPU ms": share(cost.workers, 1000),
        "sender CPU ms": share(cost.sender, 1000),
        "model CPU ms": share(cost.model, 1000),
        "database CPU ms": share(cost.database.cpu_seconds, 1000),
        "WAL bytes": share(cost.database.wal_bytes),
        "of that full pages": share(cost.database.full_page_bytes),
        "statements": share(counts["statements"]),
        "FK checks": share(counts["nested"]),
        "transactions": share(counts["transactions"]),
        "host busy %": cost.host["busy"] * 100,
        "host steal %": cost.host["steal"] * 100,
    }


def medians(rounds: Sequence[Figures]) -> Figures:
    """Return the median of each figure over the rounds."""
    return {name: middle([figures[name] for figures in rounds]) for name in rounds[0]}


def middle(values: Sequence[float | None]) -> float | None:
    """Return the median of what was measured, None where nothing was."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
