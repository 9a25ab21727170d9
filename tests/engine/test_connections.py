"""How many connections a cluster has to its database and to Redis: those that docs/howto/deployment.md counts."""

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil
import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from rest_framework.authtoken.models import Token
from websockets.asyncio.client import connect

from durable_agents import create_thread
from tests.crash.diagnosis import holders
from tests.packaging.projects import answers
from tests.project.models import Booking
from tests.servers.model import Call, ModelUnderTest, Reply
from tests.workers import ROOT, Cluster, at_rest, running, until

pytestmark = pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no connections to count")

TOOLS, FEW, MANY = 3, 2, 12
ONE_PROCESS = {"TEST_DURABLE_AGENTS": '{"PROCESSES": 1}'}
ROLES = {"pusher": r"pushing tasks at (\d+)", "monitor": r"monitoring at (\d+)", "worker": r"ready for work at (\d+)"}


def roles(cluster: Cluster) -> dict[int, str]:
    """What each process of the cluster is, by its own line in the log; the sentinel's does not give its id."""
    known = {process.pid: "sentinel" for process in cluster.processes()} | {cluster.process.pid: "main"}
    for role, line in ROLES.items():
        known |= {int(pid): role for pid in re.findall(line, cluster.log)}
    return known


def connections_of(cluster: Cluster, port: int) -> dict[str, list[int]]:
    """For each role: how many connections each of its processes has to PostgreSQL, most first. None may be shared."""
    held = holders(cluster.processes(), port)
    assert all(len(pids) == 1 for pids in held.values()), f"inherited: {held}"
    counts = Counter(pid for [pid] in held.values())
    found: dict[str, list[int]] = {}
    for pid, role in roles(cluster).items():
        found.setdefault(role, []).append(counts[pid])
    return {role: sorted(numbers, reverse=True) for role, numbers in found.items()}


def known_to_postgresql() -> set[int]:
    """The ports of the clients that the server itself says are connected to this test's database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT client_port FROM pg_stat_activity WHERE datname = current_database()")
        return {port for (port,) in cursor.fetchall()}


@contextlib.contextmanager
def nobody_may_book() -> Iterator[None]:
    """Hold what every booking waits for, on a connection of its own."""
    locker = connection.copy("default")
    locker.set_autocommit(False)
    try:
        with locker.cursor() as cursor:
            cursor.execute(f'LOCK TABLE "{Booking._meta.db_table}" IN EXCLUSIVE MODE')
        yield
    finally:
        locker.rollback()
        locker.close()


def workers_while_tools_run(cluster: Cluster, server: ModelUnderTest, port: int) -> list[int]:
    """Let sync tools stand still in the middle of a statement, each on its connection; count the workers'."""
    calls = tuple(Call(name="book", arguments={"name": f"table {number}"}) for number in range(TOOLS))
    server.answer_with(Reply(calls=calls), Reply(text="Done."))
    with nobody_may_book():
        thread = create_thread("toolbox", prompt="Book.")
        until(lambda: max(connections_of(cluster, port)["worker"]) >= 2 + TOOLS, what=lambda: cluster.log)
        counted = connections_of(cluster, port)["worker"]
    [thread] = at_rest(thread)
    assert (thread.status, Booking.objects.count()) == ("completed", TOOLS)
    return counted


def test_a_cluster_has_the_connections_to_postgresql_that_the_documents_count(worker_env, model_server):
    """Idle, while sync tools use the database, and afterwards; none is inherited from a parent."""
    port = int(connection.settings_dict["PORT"] or 5432)
    at_broker = 0 if "TEST_REDIS_URL" in os.environ else 1
    with running(worker_env, workers=3, TEST_MODEL_URL=model_server.url, **ONE_PROCESS) as cluster:
        until(lambda: "pusher" in roles(cluster).values(), what=lambda: cluster.log)
        until(lambda: connections_of(cluster, port)["worker"][0] == 2, what="the reaper to look")
        idle = connections_of(cluster, port)
        assert idle["pusher"][0] <= at_broker  # it opens one for each look
        assert idle == {"main": [0], "sentinel": [0], "pusher": idle["pusher"], "monitor": [0], "worker": [2, 1, 1]}
        of_workers = {port for port, [pid] in holders(cluster.processes(), port).items() if pid in cluster.workers}
        assert of_workers <= known_to_postgresql()

        busy = workers_while_tools_run(cluster, model_server, port)
        assert busy[0] in {2 + TOOLS, 3 + TOOLS}  # engine, leases, one a tool; the reaper's where it is this process
        assert sum(busy) == 2 + TOOLS + 1 + 2  # the reaper's, and the two other workers' own

        until(lambda: max(connections_of(cluster, port)["worker"]) <= 3, what="the tools' connections to be closed")
        after = connections_of(cluster, port)
        assert after["main"] == [0]
        assert after["sentinel"][0] <= 1  # it looks at the schedules every half minute
        assert sum(after["worker"]) <= 2 + 1 + 2


@pytest.mark.skipif("TEST_REDIS_URL" not in os.environ, reason="no Redis")
def test_a_cluster_has_the_connections_to_redis_that_the_documents_count(worker_env, model_server):
    """One a process that has used it, and one for the channel layer; the sentinel's is inherited and never used."""
    port = urlsplit(os.environ["TEST_REDIS_URL"]).port or 6379
    with running(worker_env, workers=3, TEST_MODEL_URL=model_server.url, **ONE_PROCESS) as cluster:
        until(lambda: "pusher" in roles(cluster).values(), what=lambda: cluster.log)
        at_rest(create_thread("talker", prompt="Hi."))
        held, known = holders(cluster.processes(), port), roles(cluster)
        shared = {frozenset(known[pid] for pid in pids) for pids in held.values() if len(pids) > 1}
        assert shared <= {frozenset({"sentinel", "worker", "monitor"}), frozenset(known.values()) - {"main"}}
        own = Counter(known[pids[0]] for pids in held.values() if len(pids) == 1)
        assert (own["main"], own["pusher"]) == (0, 1)
        assert own["worker"] <= 2 * 3


@contextlib.contextmanager
def web_server(env: dict[str, str]) -> Iterator[tuple[psutil.Process, int]]:
    """A running web server: its process and its port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "daphne", "-p", str(port), "demo_project.asgi:application"]
    server = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(port), what="a web server")
        yield psutil.Process(server.pid), port
    finally:
        server.terminate()
        server.wait(10)


async def count_with(number: int, process: psutil.Process, at: int, *, token: str, thread: str) -> Counter[int]:
    """Let so many browsers follow a thread; return how many connections the server then has, by the port they go to."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(number):
            wire = await stack.enter_async_context(
                connect(f"ws://127.0.0.1:{at}/ws/agents/", additional_headers={"Authorization": f"Token {token}"})
            )
            await wire.send(json.dumps({"type": "subscribe", "id": "s", "thread": thread}))
            assert json.loads(await wire.recv())["type"] == "snapshot"
        await asyncio.sleep(1)
        return Counter(
            one.raddr.port
            for one in process.net_connections("tcp")
            if one.raddr and one.status == psutil.CONN_ESTABLISHED and one.laddr.port != at
        )


def test_a_web_process_has_as_many_connections_for_many_browsers_as_for_few(worker_env):
    """One to PostgreSQL for all websockets and the poller, where any; a few to Redis."""
    user = get_user_model().objects.create(username="ada")
    token, thread = Token.objects.create(user=user).key, str(create_thread("talker", owner=user).pk)
    postgres = int(connection.settings_dict["PORT"] or 5432)
    with web_server(worker_env) as (process, at):
        few = asyncio.run(count_with(FEW, process, at, token=token, thread=thread))
        many = asyncio.run(count_with(MANY, process, at, token=token, thread=thread))
    assert few[postgres] <= 1
    assert many[postgres] <= 1
    assert many.total() - many[postgres] <= 4
