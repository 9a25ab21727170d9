"""How long many threads at once take with real workers: prints seconds from the first send to the last answer.

python -m tests.benchmarks.many_threads [--threads 50] [--tokens 40] [--seconds 2] [--processes 2]

The model is a real HTTP server that streams `--tokens` tokens over `--seconds` seconds. `TEST_DATABASE_URL` (an empty
database of the benchmark's own) and `TEST_REDIS_URL` choose the servers; SQLite without them.
"""

import argparse
import os
import time
from typing import Any

from tests.benchmarks import standalone
from tests.servers.model import ModelUnderTest, Reply


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    measure(parser.parse_args())


def measure(options: argparse.Namespace) -> None:
    """Run the rounds; the first one warms the workers and is printed too."""
    from tests.workers import Cluster

    text = " ".join(f"token{number}" for number in range(options.tokens))
    reply = Reply(text=text, delay_seconds=options.seconds / options.tokens)
    with ModelUnderTest(reply) as server:
        # One worker more than may work on agents: the project's own tasks always find one.
        env = {**os.environ, "TEST_MODEL_URL": server.url, "TEST_WORKERS": str(options.processes + 1)}
        cluster = Cluster(env).wait_until_ready(options.processes + 1)
        try:
            for number in range(options.rounds):
                before, own = cpu_seconds(cluster), time.process_time()
                took = one_round(options.threads)
                own, used = time.process_time() - own, cpu_seconds(cluster) - before
                print(f"round {number + 1}: {took:.2f} s (CPU: cluster {used:.1f} s, sender and model server {own:.1f} s)")
            print(f"requests: {len(server.journal)}, memory: {memory_mb(cluster)} MB PSS in all")
        finally:
            cluster.stop()


def one_round(count: int) -> float:
    """Seconds until `count` new threads, made one after the other, are all answered."""
    from durable_agents import create_thread
    from durable_agents.models import Stream
    from tests.workers import at_rest

    started = time.monotonic()
    threads = [create_thread("talker", prompt="Go.") for _ in range(count)]
    rested = at_rest(*threads, seconds=120)
    took = time.monotonic() - started
    assert {thread.status for thread in rested} == {"completed"}, [thread.error_code for thread in rested]
    owners = Stream.objects.filter(thread__in=threads).count()
    assert owners == count, f"{owners} attempts for {count} answers"
    return took


def cpu_seconds(cluster: Any) -> float:
    """CPU time that all processes of the cluster have used."""
    return sum(sum(process.cpu_times()[:2]) for process in cluster.processes())


def memory_mb(cluster: Any) -> int:
    """Proportional set size of all processes of the cluster, in megabytes."""
    return sum(process.memory_full_info().pss for process in cluster.processes()) // 1_000_000


if __name__ == "__main__":
    standalone.run(main)
