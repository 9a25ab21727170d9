"""Measure this project's workers beside bare loops: `python -m tests.benchmarks LOAD [options]`.

It starts what it needs and ends it: a model server in a process of its own, PostgreSQL and Redis (those that
`TEST_DATABASE_URL` and `TEST_REDIS_URL` name, else servers of its own), `manage.py qcluster` with two workers, the
loops. The contenders take turns; medians of the rounds are printed, with the ratio to the bare litellm loop of the
same run. How to read the figures: `docs/performance.md`.
"""

import argparse
import contextlib
import itertools
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("SECRET_KEY", "only-for-the-tests-of-this-project-0123456789")

from tests.benchmarks import servers
from tests.benchmarks.peers import PEERS, is_installed
from tests.benchmarks.servers import ROOT, Database, ModelProcess

DOORS = {
    "litellm": "durable_agents.llm.LiteLLMDoor",
    "null": "tests.benchmarks.doors.NullDoor",
    "direct": "direct",
    "auto": "auto",
}
LOADS = ("one", "many", "streams", "tokens", "long", "kill")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "load", choices=[*LOADS, "live", "sqlite", "all"], help="`sqlite`: the ratio of `many` on both databases"
    )
    parser.add_argument("--door", choices=[*DOORS, "configured"], default="configured")
    parser.add_argument(
        "--only", default="", help="comma-separated contenders: ours, aiohttp, litellm, " + ", ".join(PEERS)
    )
    parser.add_argument("--peers", action="store_true", help="measure the frameworks of the extra bench-peers too")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5, help="of `one`, `tokens` and `live`: how long a round is")
    parser.add_argument(
        "--threads", type=int, help="threads at once: 200 by default, 50 of `tokens` and `live`, 30 of `kill`"
    )
    parser.add_argument("--steps", type=int, default=10, help="tool steps of a thread; of `long` 200")
    parser.add_argument("--sqlite", action="store_true", help="SQLite and the ORM broker instead of the servers")
    parser.add_argument("--broker", choices=["redis", "orm"], default="redis")
    parser.add_argument("--settings", default="{}", help="more keys of DURABLE_AGENTS, as JSON")
    parser.add_argument("--statements", type=int, default=0, metavar="N", help="print the N most frequent statements")
    parser.add_argument("--minutes", type=float, default=20, help="give up after this time")
    parser.add_argument("--report", help="store the figures of every round in this file, as JSON")
    add_live_arguments(parser.add_argument_group("live"))
    return parser.parse_args()


def add_live_arguments(group: Any) -> None:
    """Add the options of the load `live`."""
    group.add_argument("--server", choices=["daphne", "uvicorn"], default="daphne")
    group.add_argument("--web", type=int, default=1, metavar="N", help="web processes")
    group.add_argument("--layer", choices=["core", "pubsub"], default="pubsub", help="of channels_redis")
    group.add_argument("--token-ms", type=int, default=20, metavar="MS", help="time between two tokens")
    group.add_argument("--viewers", type=int, default=0, metavar="N", help="further sockets on the first thread")
    group.add_argument("--connects", type=int, default=0, metavar="N", help="first let so many sockets connect at once")
    group.add_argument(
        "--noisy",
        type=int,
        nargs="?",
        const=40,
        default=0,
        metavar="N",
        help="measure again while one user subscribes twice a second on so many sockets (40) and reads nothing",
    )
    group.add_argument("--idle", type=int, default=0, metavar="N", help="first measure so many idle sockets")


def main() -> None:
    """Run the load that the command line names."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"not done within {options.minutes:g} minutes"))
    signal.alarm(int(options.minutes * 60))
    if options.load == "sqlite":
        compare_databases(options)
        return
    if options.load == "live":
        options.only = "ours"
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(database_server(options))
        broker = stack.enter_context(redis(options))
        model = stack.enter_context(servers.model_process())
        env = environment(options, database, broker)
        measure(options, stack, database, model, env)


@contextlib.contextmanager
def database_server(options: argparse.Namespace) -> Iterator[Database]:
    """Yield the database that the options ask for."""
    url = os.environ.get("TEST_DATABASE_URL", "")
    if options.sqlite:
        chosen = servers.sqlite()
    else:
        chosen = servers.shared_postgres(url) if url.startswith("postgres") else servers.own_postgres()
    with chosen as database:
        yield database


@contextlib.contextmanager
def redis(options: argparse.Namespace) -> Iterator[str]:
    """Yield the URL of a Redis, an empty string where none is used."""
    if options.sqlite or options.broker == "orm":
        yield ""
        return
    with servers.redis_server() as url:
        yield url


def environment(options: argparse.Namespace, database: Database, broker: str) -> dict[str, str]:
    """Return the environment of all processes that know Django."""
    # All viewers of a thread belong to one user.
    settings: dict[str, Any] = {"PROCESSES": 2, "MAX_SOCKETS_PER_USER": 10_000, **json.loads(options.settings)}
    if options.door != "configured":
        settings["MODEL_DOOR"] = DOORS[options.door]
    layer = {"TEST_LAYER": "core.RedisChannelLayer"} if options.layer == "core" else {}
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "DEBUG": "0",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "TEST_DATABASE_URL": database.url,
        "TEST_REDIS_URL": broker,
        "TEST_DURABLE_AGENTS": json.dumps(settings),
        "TEST_LOG_LEVEL": "WARNING",
        **layer,
    }


def setup_django(env: dict[str, str]) -> None:
    """Make the tables; have this process send messages and look at the threads."""
    os.environ.update(env)
    import django
    from django.core.management import call_command

    django.setup()
    logging.getLogger("django-q").setLevel(logging.WARNING)  # a line for every message that is put in the queue
    call_command("migrate", verbosity=0)


def measure(
    options: argparse.Namespace,
    stack: contextlib.ExitStack,
    database: Database,
    model: ModelProcess,
    env: dict[str, str],
) -> None:
    """Start the contenders, have them take turns, print and store the medians."""
    from tests.benchmarks import live, loads, report

    chosen = started(options, stack, database, model, env)
    limit = model.answers_per_second()
    facts = {**report.circumstances(), "options": vars(options), "model server answers/s": limit}
    print(
        f"{facts['commit']}{' (changed)' if facts['changed'] else ''}, {facts['processors']} x {facts['processor']}, "
        f"Python {facts['python']}, {database.vendor}; the model server alone could give {limit:,.0f} answers/s",
        flush=True,
    )
    results: dict[str, Any] = {}
    runs = {**loads.LOADS, "live": live.live}
    for load in LOADS if options.load == "all" else (options.load,):
        rounds: dict[str, list[loads.Figures]] = {}
        for _, contender in itertools.product(range(options.rounds), chosen):
            if load == "kill" and not contender.is_durable:
                continue
            rounds.setdefault(contender.name, []).append(runs[load](contender, model.process.pid, options))
            if options.statements and contender.meter is database.meter:
                print_statements(options, database)
        medians = {name: loads.medians(figures) for name, figures in rounds.items()}
        results[load] = {"medians": medians, "rounds": rounds}
        print("\n" + report.table(f"{load}: {loads.title(runs[load])} (rounds: {options.rounds})", medians), flush=True)
        if options.report:
            report.store(options.report, {**facts, "loads": results})


def started(
    options: argparse.Namespace,
    stack: contextlib.ExitStack,
    database: Database,
    model: ModelProcess,
    env: dict[str, str],
) -> list[Any]:
    """Return the contenders that the options name, warm; they are ended with the stack."""
    from tests.benchmarks import loads
    from tests.benchmarks.contenders import Contender, Loop, Ours

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="durable-agents-benchmark-")))
    name = f"ours, {options.door} door" if options.door != "configured" else "ours"
    contenders: dict[str, Contender] = {"ours": Ours(name, model, database, env, folder / "calls.jsonl")}
    for loop in ("aiohttp", "litellm"):
        command = ["tests.benchmarks.loops", loop, model.url]
        contenders[loop] = Loop(f"{loop} loop", model, command=command, env=env)
    named = options.only.split(",") if options.only else []
    for peer in PEERS if database.peers_url else ():
        if not options.peers and peer not in named:
            continue
        if is_installed(peer):
            command = ["tests.benchmarks.peers", peer, model.url, database.peers_url]
            contenders[peer] = Loop(peer, model, command=command, env=env, database=database)
        else:
            print(f"{peer} is not installed, so it is left out: pip install -e .[bench-peers]", flush=True)
    chosen = [contender for name, contender in contenders.items() if not named or name in named]
    for contender in reversed(chosen):  # the loops import litellm while the tables are made
        stack.callback(contender.stop)
        if isinstance(contender, Ours):
            setup_django(env)
        contender.start()
    for contender in chosen:
        contender.wait_until_ready()
        loads.warm_up(contender)
    return chosen


def compare_databases(options: argparse.Namespace) -> None:
    """Run `many` on PostgreSQL and on SQLite in turns, and print the ratio of the steps in a second."""
    speeds: dict[str, list[float]] = {"postgresql": [], "sqlite": []}
    command = [sys.executable, "-m", "tests.benchmarks", "many", "--only", "ours", "--door", options.door]
    command += ["--threads", str(options.threads or 200), "--steps", str(options.steps), "--settings", options.settings]
    with tempfile.TemporaryDirectory(prefix="durable-agents-benchmark-") as folder:
        path = Path(folder) / "report.json"
        for _, vendor in itertools.product(range(options.rounds), speeds):
            more = ["--sqlite"] if vendor == "sqlite" else []
            subprocess.run([*command, *more, "--report", str(path)], cwd=ROOT, check=True)
            (figures,) = json.loads(path.read_text(encoding="utf-8"))["loads"]["many"]["medians"].values()
            speeds[vendor].append(figures["steps/s"])
    medians = {vendor: statistics.median(values) for vendor, values in speeds.items()}
    ratio = medians["sqlite"] / medians["postgresql"]
    print(f"\nsqlite: steps/s {medians['sqlite']:.3g}, postgresql {medians['postgresql']:.3g}, ratio {ratio:.2f}")
    if options.report:
        Path(options.report).write_text(json.dumps({"options": vars(options), "steps/s": speeds}), encoding="utf-8")


def print_statements(options: argparse.Namespace, database: Database) -> None:
    """Print the most frequent statements of the last run."""
    for role, calls, rows, ms, wal, query in database.meter.top_statements(options.statements):
        text = " ".join(query.split())[:150]
        print(f"{role:>17} {calls:>6} calls {rows:>7} rows {ms:>8.1f} ms {wal:>9} B WAL  {text}")


if __name__ == "__main__":
    main()
