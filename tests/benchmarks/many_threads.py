"""How long many threads at once take with real workers, beside bare litellm loops in as many processes.

python -m tests.benchmarks.many_threads [--threads 50] [--tokens 40] [--seconds 2] [--calls 1] [--processes 2] [--bare]

Prints seconds from the first send to the last answer. The model is a real HTTP server that streams `--tokens` tokens
over `--seconds` seconds; with `--calls 2` its first answer calls a tool. `TEST_DATABASE_URL` (an empty database of the
benchmark's own) and `TEST_REDIS_URL` choose the servers; SQLite without them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

from tests.benchmarks import standalone
from tests.servers.model import Call, ModelUnderTest, Reply


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--calls", type=int, default=1, help="model calls of each thread")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help="compare with bare litellm loops")
    measure(parser.parse_args())


def measure(options: argparse.Namespace) -> None:
    """Run the rounds; the first one warms the workers and is printed too."""
    from tests.workers import Cluster

    with ModelUnderTest(script(options)) as server:
        # One worker more than may work on agents: the project's own tasks always find one.
        workers = options.processes + 1
        settings = {"POOLS": {"agents": {"limit": 2 * options.threads}}}
        env = {"TEST_MODEL_URL": server.url, "TEST_WORKERS": str(workers), "TEST_DURABLE_AGENTS": json.dumps(settings)}
        env["DEBUG"] = "0"
        cluster = Cluster({**os.environ, **env}).wait_until_ready(workers)
        try:
            best = min(measured_round(cluster, number, options) for number in range(options.rounds))
            print(f"best: {best:.2f} s; memory: {memory_mb(cluster)} MB PSS in all", flush=True)
        finally:
            cluster.stop()
        if options.bare:
            bare = min(bare_round(server.url, options) for _ in range(options.rounds))
            print(f"bare litellm loops: {bare:.2f} s; ratio {best / bare:.2f}", flush=True)


def script(options: argparse.Namespace) -> Any:
    """The model: text, with a tool call until the last of the calls of a thread."""
    text = " ".join(f"token{number}" for number in range(options.tokens))
    delay = options.seconds / options.tokens

    def answer(request: dict[str, Any]) -> Reply:
        told = sum(1 for message in request["messages"] if message["role"] == "tool")
        calls = (Call(name="add", arguments={"a": 2, "b": 3}),) if told + 1 < options.calls else ()
        return Reply(text=text, calls=calls, delay_seconds=delay)

    return answer


def measured_round(cluster: Any, number: int, options: argparse.Namespace) -> float:
    before, own = cpu_seconds(cluster), time.process_time()
    took = one_round(options)
    own, used = time.process_time() - own, cpu_seconds(cluster) - before
    print(
        f"round {number + 1}: {took:.2f} s (CPU: cluster {used:.1f} s, sender and model server {own:.1f} s)", flush=True
    )
    return took


def one_round(options: argparse.Namespace) -> float:
    """Seconds until so many new threads, made one after the other, are all answered."""
    from durable_agents import create_thread
    from durable_agents.models import Stream, Thread

    started = time.monotonic()
    threads = [create_thread("toolbox", prompt="Go.") for _ in range(options.threads)]
    while Thread.objects.running().exists():
        assert time.monotonic() - started < 120
        time.sleep(0.1)
    took = time.monotonic() - started
    rested = [Thread.objects.get(pk=thread.pk) for thread in threads]
    assert {thread.status for thread in rested} == {"completed"}, [thread.error_code for thread in rested]
    attempts = Stream.objects.filter(thread__in=threads).count()
    assert attempts == options.threads * options.calls, f"{attempts} attempts"
    return took


def bare_round(url: str, options: argparse.Namespace) -> float:
    """Seconds that bare loops take for the same conversations, shared among as many processes."""
    whole, rest = divmod(options.threads, options.processes)
    shares = [str(whole + (number < rest)) for number in range(options.processes)]
    command = [sys.executable, "-m", "tests.benchmarks.bare_loop", url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    loops: list[Any] = [subprocess.Popen([*command, share, str(options.calls)], **pipes) for share in shares]
    for loop in loops:
        loop.stdout.readline()
    for loop in loops:
        loop.stdin.write("go\n")
        loop.stdin.flush()
    return max(float(loop.communicate()[0]) for loop in loops)


def cpu_seconds(cluster: Any) -> float:
    """CPU time that all processes of the cluster have used."""
    return sum(sum(process.cpu_times()[:2]) for process in cluster.processes())


def memory_mb(cluster: Any) -> int:
    """Proportional set size of all processes of the cluster, in megabytes."""
    return sum(process.memory_full_info().pss for process in cluster.processes()) // 1_000_000


if __name__ == "__main__":
    standalone.run(main)
