"""Live delivery over a faulty channel layer: python -m tests.shaken_delivery [--operations 10000] [--postgres]

Websocket clients follow threads, leave them, and come back with their cursors, at two web processes whose channel layer
drops, doubles or reorders a tenth of its messages. Meanwhile random histories are written with the engine's own
functions. After each round of operations, the histories pause, and each client has to show what the database has.

Printed are the operations, the faults, how long it took until all clients were equal to the database, and what a
watcher costs: statements of the web processes for the same answers with few and with many watchers. The exit code is 0
only if all clients were equal in time, and further watchers cost nothing.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.storm import heading, own_database

EQUAL_SECONDS = 10.0
GIVE_UP_SECONDS = 30.0
MAX_FURTHER = 0.02
"""Statements for a change and a further watcher. One that each watcher makes for one change in fifty would show."""
WEB_PROCESSES = 2
DELTAS = 300
MOVES_PER_SECOND = 60
TAIL = 50


@dataclass(kw_only=True)
class Outcome:
    """What came of a run."""

    operations: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    followers: int = 0
    changes: int = 0
    """Transitions of the histories."""
    seconds: float = 0.0
    equal_after: list[float] = field(default_factory=list)
    """Seconds from the last change of each round until all clients were equal to the database."""
    mismatches: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What clients received that they should not have."""
    watched: dict[int, int] = field(default_factory=dict)
    """Statements of the web processes for the same answer, by the number of its watchers."""

    @property
    def further(self) -> float:
        """Statements for a change and a further watcher."""
        (few, cost_of_few), (many, cost_of_many) = sorted(self.watched.items())
        return (cost_of_many - cost_of_few) / (many - few) / DELTAS

    @property
    def violations(self) -> list[str]:
        """What must not be."""
        found = [*self.mismatches[:10], *self.problems[:10]]
        if max(self.equal_after, default=GIVE_UP_SECONDS) > EQUAL_SECONDS:
            found.append(f"a client was not equal to the database within {EQUAL_SECONDS:g} s")
        if self.further > MAX_FURTHER:
            found.append(f"a further watcher costs more than {MAX_FURTHER:g} statements a change")
        if not all(self.faults[kind] for kind in ("dropped", "doubled", "reordered")):
            found.append("a kind of fault has not occurred: nothing was shown")
        return found

    def report(self) -> str:
        """Return the numbers as text."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.operations.items())
        faulty = sum(count for kind, count in self.faults.items() if kind != "received")
        faults = ", ".join(f"{count} {kind}" for kind, count in self.faults.items())
        share = 100 * faulty / max(1, self.faults["received"])
        waits = sorted(self.equal_after)
        watched = ", ".join(f"{count} with {watchers} watchers" for watchers, count in sorted(self.watched.items()))
        lines = [
            f"{sum(self.operations.values())} operations in {self.seconds:.0f} s ({kinds})",
            f"{self.followers} clients at {WEB_PROCESSES} web processes; {self.changes} changes of threads",
            f"messages of the channel layer: {faults} ({share:.1f} % faulty)",
            f"until all were equal, {len(waits)} times: p50 {waits[len(waits) // 2]:.1f} s, max {waits[-1]:.1f} s",
            f"mismatches {len(self.mismatches)}, wrong frames {len(self.problems)}",
            f"statements for {DELTAS} changes: {watched}; {self.further:.4f} for a change and a further watcher",
        ]
        return "\n".join([*lines, *(f"VIOLATION {text}" for text in self.violations)])


class Writer:
    """Writes the histories of all threads, in an OS thread, until it is paused or ended."""

    def __init__(self, seed: int) -> None:
        from durable_agents import create_thread
        from tests.lifecycle.histories import History
        from tests.lifecycle.stage import Worker
        from tests.shaken_delivery.site import NAMES

        self.histories = [
            History(create_thread(name), seed=seed + number, worker=Worker(agents=(name,)))
            for number, name in enumerate(NAMES)
        ]
        self.moves = 0
        self.errors: list[str] = []
        self._may_write, self._is_over, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._may_write.set()
        self._thread.join(30)

    def go_on(self) -> None:
        """Let the histories go on."""
        self._may_write.set()

    def pause(self) -> None:
        """Return when the last change is committed, and its notification is sent or dropped."""
        from durable_agents.notifications import flush_notifications

        self._may_write.clear()
        with self._lock:
            flush_notifications(5)

    def _run(self) -> None:
        from django.db import connections

        turns = itertools.cycle(self.histories)
        while self._may_write.wait() and not self._is_over.is_set():
            with self._lock:
                if not self._may_write.is_set():
                    continue
                try:
                    next(turns).go_on()
                except Exception as error:
                    self.errors.append(f"the histories failed: {error!r}")
                    break
                self.moves += 1
            time.sleep(1 / MOVES_PER_SECOND)
        connections.close_all()


def stored(thread_id: str) -> dict[str, Any]:
    """Return what a client of this thread has to show."""
    from durable_agents.models import Thread
    from tests.streaming.truth import truth

    thread = Thread.objects.get(pk=thread_id)
    messages = json.loads(json.dumps(truth(thread)))
    return {"rev": thread.rev, "status": thread.status, "messages": messages}


def differences(followers: Sequence[Any], stored_by_thread: dict[str, dict[str, Any]]) -> list[str]:
    """Return which clients show something else than what is stored."""
    found = []
    for follower in followers:
        for thread in follower.followed:
            client, expected = follower.shown[thread], stored_by_thread[thread]
            shown = client.shown()
            # A client that has not asked for older messages shows the newest.
            messages = expected["messages"][-len(shown) :] if client.has_older and shown else expected["messages"]
            if (client.rev, client.status) != (expected["rev"], expected["status"]):
                state = f"rev {client.rev} {client.status}, not rev {expected['rev']} {expected['status']}"
                found.append(f"{follower.name} shows thread {thread} at {state}")
            elif shown != messages:
                found.append(f"{follower.name} shows other messages of thread {thread}: {shown} != {messages}"[:2000])
    return found


async def until_equal(followers: Sequence[Any], outcome: Outcome, *, since: float) -> None:
    """Wait until all clients show what is stored, and note how long that took."""
    threads = sorted({thread for follower in followers for thread in follower.followed})
    expected = {thread: await in_thread(stored, thread) for thread in threads}
    while left := differences(followers, expected):
        if time.monotonic() - since > GIVE_UP_SECONDS:
            outcome.mismatches += left
            break
        await asyncio.sleep(0.1)
    outcome.equal_after.append(time.monotonic() - since)


async def in_thread(function: Any, *arguments: Any) -> Any:
    """Call a function that uses the database in the one OS thread that this process has for that."""
    from asgiref.sync import sync_to_async

    return await sync_to_async(function)(*arguments)


def new_user(name: str) -> str:
    """Return the cookie of a new user's session."""
    from django.contrib.auth import get_user_model

    from tests.websocket.sockets import cookie_of

    user: Any = get_user_model().objects.create(username=name)
    return cookie_of(user)


async def shake(options: argparse.Namespace, urls: Sequence[str], folder: Path) -> Outcome:
    """Run the operations in rounds beside the histories, and compare after each round."""
    import aiohttp

    from tests.shaken_delivery.followers import Follower, Operations
    from tests.shaken_delivery.layer import totals

    outcome = Outcome(followers=options.clients)
    turns = itertools.cycle(urls)
    cookies = [await in_thread(new_user, f"client-{number}") for number in range(options.clients)]
    followers = [
        Follower(name=f"client {number}", cookie=cookie, urls=turns, problems=outcome.problems)
        for number, cookie in enumerate(cookies)
    ]
    writer = await in_thread(Writer, options.seed)
    threads = [str(history.thread.pk) for history in writer.histories]
    operations = Operations(followers, threads, seed=options.seed)
    began = time.monotonic()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for follower in followers:
            await follower.connect(session)
        pinging = asyncio.get_running_loop().create_task(operations.ping())
        with writer:
            for number in range(options.rounds):
                writer.go_on()
                rest = options.operations - sum(operations.counts.values())
                await operations.run(rest // (options.rounds - number))
                await in_thread(writer.pause)
                await until_equal(followers, outcome, since=time.monotonic())
                made = sum(operations.counts.values())
                wrong = [*outcome.mismatches, *outcome.problems]
                print(f"{made} operations, equal after {outcome.equal_after[-1]:.1f} s, {len(wrong)} wrong", flush=True)
                if wrong:
                    print(wrong[-1], flush=True)
        outcome.seconds = time.monotonic() - began
        outcome.operations, outcome.changes = operations.counts, writer.moves
        outcome.problems += writer.errors
        for follower in followers:
            for thread in {threads[0]} & follower.followed:
                await follower.unsubscribe(thread)
        for share in (0.1, 1):
            watchers = max(WEB_PROCESSES, int(share * len(followers)))
            outcome.watched[watchers] = await watch(followers[:watchers], writer.histories[0], folder, outcome)
        pinging.cancel()
        await asyncio.gather(*(follower.leave() for follower in followers))
    outcome.faults = totals(folder / "faults")
    return outcome


async def watch(watchers: Sequence[Any], history: Any, folder: Path, outcome: Outcome) -> int:
    """Stream an answer to so many clients, and return how many statements the web processes made for it."""
    thread = str(history.thread.pk)
    await asyncio.gather(*(one.subscribe(thread, by_cursor=thread not in one.followed) for one in watchers))
    before = statements(folder)
    await in_thread(tell_long_story, history)
    since = time.monotonic()
    await until_equal(watchers, outcome, since=since)
    return statements(folder) - before


def statements(folder: Path) -> int:
    """Return how many statements the web processes have made so far."""
    from tests.project import statement_counts

    return statement_counts.totals(folder / "statements")["statements"]


def tell_long_story(history: Any) -> None:
    """Answer a message with many deltas, each with a notification, as a worker does."""
    from durable_agents import lifecycle
    from durable_agents.notifications import flush_notifications

    history.come_to_rest()
    lifecycle.send_message(history.thread, "A long story.")
    claim = history.worker.claim_step()
    for number in range(DELTAS):
        history.worker.say(claim, f"{number} ")
        time.sleep(0.02)
    history.worker.answer("".join(f"{number} " for number in range(DELTAS)), claim=claim)
    flush_notifications(5)


@contextlib.contextmanager
def servers(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, str]]:
    """Start the database and the Redis; give the environment of processes that use them."""
    from tests.servers.redis import RedisUnderTest

    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{folder / 'shaken.sqlite3'}"
        if options.postgres:
            url = stack.enter_context(own_database()).url
        redis = RedisUnderTest(folder).start()
        stack.callback(redis.kill)
        layer = {"pubsub": "pubsub.RedisPubSubChannelLayer", "core": "core.RedisChannelLayer"}[options.layer]
        yield {"TEST_DATABASE_URL": url, "TEST_REDIS_URL": redis.url, "TEST_LAYER": layer}


def run(options: argparse.Namespace, folder: Path) -> Outcome:
    """Start the web processes, and shake them."""
    from django.core.management import call_command
    from django.db import connections

    from tests.chat.server import Server

    call_command("migrate", verbosity=0)
    connections.close_all()
    faults = {"share": options.faults / 100, "seed": options.seed, "folder": str(folder / "faults")}
    env = os.environ | {
        "TEST_DURABLE_AGENTS": json.dumps({"POLICY": "tests.people.policies.TeamPolicy"}),
        "TEST_SHAKEN_LAYER": json.dumps(faults),
        "TEST_COUNT_STATEMENTS": str(folder / "statements"),
    }
    for name in ("faults", "statements"):
        (folder / name).mkdir()
    with contextlib.ExitStack() as stack:
        application = "tests.shaken_delivery.site:application"
        sites = [
            stack.enter_context(Server(dict(env), kind=options.server, application=application))
            for _ in range(WEB_PROCESSES)
        ]
        outcome = asyncio.run(shake(options, [site.url for site in sites], folder))
        if outcome.violations:
            print("\n".join(site.log[-5000:] for site in sites), file=sys.stderr)
    connections.close_all()
    return outcome


def main() -> int:
    """Run the operations and report on them."""
    parser = argparse.ArgumentParser(description="Follow threads over a faulty channel layer, and compare with rows.")
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=20, help="how often clients are compared with the database")
    parser.add_argument("--faults", type=float, default=10, help="per cent of the messages of the channel layer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server", choices=["daphne", "uvicorn"], default="daphne")
    parser.add_argument("--layer", choices=["core", "pubsub"], default="core", help="which layer of channels_redis")
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL of its own, not SQLite")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the report into this file as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="durable-agents-shaken-") as name, servers(options, Path(name)) as env:
        os.environ.update(
            env, DJANGO_SETTINGS_MODULE="tests.shaken_delivery.settings", PYTHONUNBUFFERED="1", TEST_LOG_LEVEL="WARNING"
        )
        import django

        django.setup()
        outcome = run(options, Path(name))
        report = f"{heading('Shaken delivery')}\n\n{outcome.report()}\n"
    print(report)
    if options.keep:
        options.keep.write_text(report, encoding="utf-8")
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
