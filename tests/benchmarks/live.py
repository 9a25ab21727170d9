"""The load `live`: how late a token reaches a browser, and what it costs to bring it there."""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tests.benchmarks.contenders import Contender, Ours
from tests.benchmarks.loads import Cost, Figures, measured, plans
from tests.benchmarks.meters import RedisMeter, cpu_seconds, pss_bytes, tree_cpu_seconds
from tests.benchmarks.servers import module_process
from tests.benchmarks.socket_clients import OPEN_AT_ONCE, Seen, Target

THREADS_PER_USER = 10
PATIENCE_SECONDS = 30
"""How long a client may wait for its last tokens when all threads are at rest."""
UNDER_TEST = ("worker", "web", "database", "redis")


class SocketClients:
    """A process with websocket clients, which ends with this one."""

    def __init__(self) -> None:
        self.process = module_process("socket_clients")

    def open(self, targets: Sequence[Target], *, at_once: int = OPEN_AT_ONCE) -> None:
        """Open a socket for each target, so many at once, and wait until all are subscribed."""
        self.ask(open=[asdict(target) for target in targets], at_once=at_once)

    def report(self, *, tokens: int) -> list[Seen]:
        """Wait until each client has so many tokens; return what each has seen, in the order of the targets."""
        return [Seen(**seen) for seen in self.ask(tokens=tokens, seconds=PATIENCE_SECONDS)]

    def ask(self, **order: Any) -> Any:
        """Send a line and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("the websocket clients have failed")
        return json.loads(answer)

    def stop(self) -> None:
        """End the process."""
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


@contextlib.contextmanager
def socket_clients(targets: Sequence[Target], *, at_once: int = OPEN_AT_ONCE) -> Iterator[SocketClients]:
    """Run a client for each target."""
    clients = SocketClients()
    try:
        clients.open(targets, at_once=at_once)
        yield clients
    finally:
        clients.stop()


class Site:
    """The web processes, and the users and threads that are made for their clients."""

    def __init__(self, pids: Sequence[int], urls: Sequence[str]) -> None:
        self.pids = pids
        self.urls = itertools.cycle(urls)
        redis_url = os.environ.get("TEST_REDIS_URL")
        self.redis = RedisMeter(redis_url) if redis_url else None

    def new_threads(self, count: int) -> list[Target]:
        """Return so many new threads, without messages, of users with sessions. Web processes take turns."""
        from django.contrib.auth import get_user_model

        from durable_agents import create_thread
        from tests.websocket.sockets import cookie_of

        targets: list[Target] = []
        while len(targets) < count:
            user: Any = get_user_model().objects.create(username=f"reader-{time.time_ns()}")
            cookie = cookie_of(user)
            for _ in range(min(THREADS_PER_USER, count - len(targets))):
                thread = str(create_thread("bench", owner=user).pk)
                targets.append(Target(url=next(self.urls), cookie=cookie, thread=thread))
        return targets

    def read(self, clients: SocketClients) -> dict[str, float]:
        """Return the CPU seconds of web processes, clients and Redis so far, and the messages of the channel layer."""
        own = {"web": cpu_seconds(self.pids), "clients": tree_cpu_seconds(clients.process.pid)}
        return own | (self.redis.read() if self.redis else {})


@contextlib.contextmanager
def running_site(options: argparse.Namespace, application: str = "demo_project.asgi:application") -> Iterator[Site]:
    """Start the web processes that the options ask for."""
    from tests.chat.server import Server

    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(Server(dict(os.environ), kind=options.server, application=application))
            for _ in range(options.web)
        ]
        yield Site([server.process.pid for server in servers], [server.url for server in servers])


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What came of answers that were streamed to clients."""

    tokens: int
    """Of all answers together."""
    seen: list[Seen]
    """By the client of each thread."""
    by_viewers: list[Seen]
    sent_at: list[float]
    stored: list[str]
    """The text of each answer in the database."""
    cost: Cost
    readings: dict[str, float]
    """What `Site.read` reads, for these answers alone."""


def live(contender: Contender, model_pid: int, options: argparse.Namespace) -> Figures:
    """Answers at once, each with a websocket client: how late a token comes, and what it costs."""
    assert isinstance(contender, Ours)
    tokens = int(options.seconds * 1000 / options.token_ms)
    shape: dict[str, int] = {"threads": options.threads or 50, "tokens": tokens, "token_ms": options.token_ms}
    with running_site(options) as site:
        deliver(
            contender, site, model_pid, **shape | {"threads": 4, "tokens": 25}
        )  # the first clients have the web processes import
        idle = idle_costs(site, options.idle, seconds=2 * options.seconds) if options.idle else {}
        connects = connect_times(site, options.connects) if options.connects else {}
        delivery = deliver(contender, site, model_pid, **shape)
        figures = {**timeliness(delivery), **costs(delivery), **idle, **connects}
        if options.noisy:
            with noisy_user(site, options.noisy):
                figures |= beside_noise(figures, timeliness(deliver(contender, site, model_pid, **shape)))
        if options.viewers:
            shown = deliver(contender, site, model_pid, **shape, viewers=options.viewers)
            figures |= viewer_costs(delivery, shown)
    return figures | bare_costs(options)


def deliver(
    contender: Ours, site: Site, model_pid: int, *, threads: int, tokens: int, token_ms: int, viewers: int = 0
) -> Delivery:
    """Stream an answer in each of so many new threads to a client, and that of the first to viewers, too."""
    from durable_agents import send_message
    from durable_agents.models import Stream

    batch = plans(threads, steps=0, tokens=tokens, token_ms=token_ms, is_clocked=True)
    targets = site.new_threads(threads)
    more = [replace(targets[0], url=next(site.urls)) for _ in range(viewers)]
    sent_at: list[float] = []
    seen: list[Seen] = []

    def run() -> list[float]:
        for plan, target in zip(batch, targets, strict=True):
            sent_at.append(time.time())
            contender.ids[plan.key] = send_message(target.thread, str(plan)).thread_id
        contender.finish(batch)
        seen.extend(clients.report(tokens=tokens))
        return []

    with socket_clients([*targets, *more]) as clients:
        before = site.read(clients)
        cost = measured(contender, model_pid, run)
        after = site.read(clients)
    texts = dict(Stream.objects.filter(state="finished").values_list("thread", "text"))
    return Delivery(
        tokens=threads * tokens,
        seen=seen[:threads],
        by_viewers=seen[threads:],
        sent_at=sent_at,
        stored=[texts[contender.ids[plan.key]] for plan in batch],
        cost=cost,
        readings={name: value - before[name] for name, value in after.items()},
    )


def timeliness(delivery: Delivery) -> Figures:
    """Return which tokens came, and how late."""
    lags = sorted(lag * 1000 for seen in delivery.seen for lag in seen.lags)
    pairs = zip(delivery.seen, delivery.sent_at, strict=True)
    first = [(seen.first_at - sent_at) * 1000 for seen, sent_at in pairs if seen.first_at is not None]
    by_delta = sum(seen.by_delta for seen in delivery.seen)
    return {
        "tokens seen": len(lags),
        "tokens lost": delivery.tokens - len(lags),
        "texts wrong": sum(seen.text != text for seen, text in zip(delivery.seen, delivery.stored, strict=True)),
        "sockets closed": sum(not seen.is_open for seen in delivery.seen),
        "lag ms p50": statistics.median(lags),
        "lag ms p95": lags[int(0.95 * (len(lags) - 1))],
        "lag ms max": lags[-1],
        "first token ms": statistics.median(first),
        "by delta frames %": 100 * by_delta / len(lags),
        "by other frames %": 100 - 100 * by_delta / len(lags),
    }


def costs(delivery: Delivery) -> Figures:
    """Return what a token cost."""
    cost, readings = delivery.cost, delivery.readings
    seconds: dict[str, float | None] = {
        "worker": cost.workers,
        "web": readings["web"],
        "database": cost.database.cpu_seconds,
        "redis": readings.get("redis"),
    }
    seconds["all four"] = sum(seconds[name] or 0 for name in UNDER_TEST)
    seconds |= {"model": cost.model, "clients": readings["clients"], "sender": cost.sender}
    counts = {
        "statements": cost.database.count("statements"),
        "layer messages": readings.get("layer messages"),
        "frames": sum(seen.frames for seen in delivery.seen),
    }
    return {
        **{f"{name} CPU us": None if s is None else s * 1e6 / delivery.tokens for name, s in seconds.items()},
        **{name: None if count is None else count / delivery.tokens for name, count in counts.items()},
        "host busy %": cost.host["busy"] * 100,
        "host steal %": cost.host["steal"] * 100,
    }


def viewer_costs(alone: Delivery, shown: Delivery) -> Figures:
    """Return what the viewers cost, by the difference to the same load without them."""
    frames = sum(seen.frames for seen in shown.by_viewers)
    lags = [lag * 1000 for seen in shown.by_viewers for lag in seen.lags]
    return {
        "viewers' lag ms p50": statistics.median(lags),
        "viewers' texts wrong": sum(seen.text != shown.stored[0] for seen in shown.by_viewers),
        "frames a viewer": frames / len(shown.by_viewers),
        "web CPU us, viewer's frame": (shown.readings["web"] - alone.readings["web"]) * 1e6 / frames,
        "layer messages, viewed": costs(shown)["layer messages"],
    }


def bare_costs(options: argparse.Namespace) -> Figures:
    """Return what idle sockets and frames cost the server and Channels alone."""
    figures: Figures = {}
    if not (options.idle or options.viewers):
        return figures
    with running_site(options, "tests.benchmarks.bare_sockets:application") as site:
        with socket_clients(site.new_threads(4)) as clients:
            clients.report(tokens=0)  # the first clients have the web processes import
        if options.idle:
            idle = idle_costs(site, options.idle, seconds=2 * options.seconds)
            figures |= {f"bare {name}": value for name, value in idle.items()}
        if options.viewers:
            # As many frames as viewers of the answer get; the sockets of the first process get them.
            frames = int(options.seconds * 10)
            with socket_clients(site.new_threads(options.viewers * options.web)) as clients:
                cpu = cpu_seconds(site.pids)
                clients.ask(tell={"type": "fan_out", "frames": frames, "ms": 100})
                time.sleep(options.seconds + 2)
                cpu = cpu_seconds(site.pids) - cpu
                got = sum(seen.frames for seen in clients.report(tokens=0))
            figures["bare web CPU us, viewer's frame"] = cpu * 1e6 / got
    return figures


def connect_times(site: Site, count: int) -> Figures:
    """Return how long it takes until clients that connect at the same time have their first snapshots."""
    with socket_clients(site.new_threads(count), at_once=count) as clients:
        times = sorted(seen.snapshot_seconds * 1000 for seen in clients.report(tokens=0))
    return {"first snapshot ms p50": statistics.median(times), "first snapshot ms max": times[-1]}


@contextlib.contextmanager
def noisy_user(site: Site, sockets: int) -> Iterator[None]:
    """Have a user subscribe twice a second on each of so many sockets to a thread of a megabyte, and read nothing."""
    from durable_agents import add_message

    [target] = site.new_threads(1)
    for _ in range(10):
        add_message(target.thread, "user", "x" * 95_000)
    noise = SocketClients()
    try:
        noise.ask(pester=asdict(target), sockets=sockets)
        time.sleep(2)
        yield
    finally:
        noise.stop()


def beside_noise(quiet: Figures, noisy: Figures) -> Figures:
    """Return how late tokens come while one user is noisy, and how many times as late as otherwise."""
    names = ("lag ms p50", "lag ms p95", "first token ms")
    figures = {f"{name}, noisy": noisy[name] for name in ("tokens lost", "texts wrong", "sockets closed", *names)}
    ratios = {f"{name}, ratio": (noisy[name] or 0) / (quiet[name] or 1) for name in names}
    return {**figures, **ratios}


def idle_costs(site: Site, count: int, *, seconds: float) -> Figures:
    """Return what sockets cost the web processes while nothing happens in their threads."""
    targets = site.new_threads(count)
    memory = pss_bytes(site.pids)
    with socket_clients(targets) as clients:
        time.sleep(2)  # until the snapshots are sent and forgotten
        cpu, started = cpu_seconds(site.pids), time.monotonic()
        time.sleep(seconds)
        share = (cpu_seconds(site.pids) - cpu) / (time.monotonic() - started)
        grown = pss_bytes(site.pids) - memory
        closed = sum(not seen.is_open for seen in clients.report(tokens=0))
    return {
        "idle sockets closed": closed,
        "idle web CPU %": share * 100,
        "idle kB a socket": grown / 1000 / count,
    }
