"""Clusters whose PostgreSQL is reached through Django's own pool of connections, or through PgBouncer."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from django.contrib.auth import get_user_model
from rest_framework.authtoken.models import Token

from durable_agents import create_thread, export_thread
from durable_agents.models import Thread
from tests.chat.server import Server
from tests.crash.diagnosis import doctor, holders
from tests.crash.talk import asked, said, was_told, words
from tests.live.wire import Wire
from tests.project.models import Booking
from tests.servers.model import Call, ModelUnderTest, Reply
from tests.servers.postgres import (
    PostgresUnderTest,
    as_server_user,
    free_port,
    owned_by_server_user,
    used_by_django,
)
from tests.workers import Cluster, at_rest, until

pytest.importorskip("psycopg_pool")
POOLS = ["true", '{"min_size": 1, "max_size": 20}']


def books_and_answers(request: dict) -> Reply:
    """Book by an atomic tool for every third question; answer all."""
    name = asked(request)
    if name.endswith("2") and not was_told(request):
        return Reply(calls=(Call(name="book", arguments={"name": name}),))
    return Reply(text=words(40, name), delay_seconds=0.05)


def answered(cluster: Cluster, *, kills: int, seconds: float = 120) -> None:
    """Ask 45 questions, kill workers meanwhile, and see that each is answered once and each booking made once."""
    threads = {f"question{number}": create_thread("toolbox", prompt=f"question{number}") for number in range(45)}
    for killed in range(1, kills + 1):
        until(lambda killed=killed: len(cluster.workers) >= 2, seconds=30)
        os.kill(random.choice(cluster.workers), signal.SIGKILL)
        until(lambda killed=killed: cluster.log.count("after death") >= killed, seconds=30, what=lambda: cluster.log)
    at_rest(*threads.values(), seconds=seconds)
    wrong = {name: said(thread) for name, thread in threads.items() if texts(thread) != [name, words(40, name)]}
    assert wrong == {}
    booked = Counter(Booking.objects.values_list("name", flat=True))
    assert booked == Counter(name for name in threads if name.endswith("2"))


def texts(thread) -> list[str]:
    return [text for _, parts in said(thread) for text in parts]


@pytest.mark.slow
@pytest.mark.parametrize("options", POOLS)
def test_cluster_with_djangos_pool_and_a_worker_killed_twice_gives_all_answers(
    own_postgres: PostgresUnderTest,
    start_on_own: Callable[..., Cluster],
    model_server: ModelUnderTest,
    options: str,
):
    model_server.answer_with(books_and_answers)
    cluster = start_on_own(3, TEST_DATABASE_POOL=options)
    answered(cluster, kills=2)
    held = holders(cluster.processes(), own_postgres.port)
    assert held
    assert all(len(pids) == 1 for pids in held.values()), f"shared by processes: {held}"
    processes = [psutil.Process(pid) for pid in cluster.group()]
    cluster.process.terminate()
    assert psutil.wait_procs(processes, timeout=20)[1] == []


def test_websockets_leave_the_connections_of_a_small_pool_to_requests(own_postgres: PostgresUnderTest):
    """A pool of one connection serves four websockets and REST, since nobody keeps it."""
    user = get_user_model().objects.create_user("ada")
    token = Token.objects.create(user=user).key
    threads = [create_thread("talker", owner=user) for _ in range(4)]
    pool = '{"min_size": 1, "max_size": 1, "timeout": 15}'
    with contextlib.ExitStack() as stack:
        web = stack.enter_context(Server(own_postgres.env, TEST_DATABASE_POOL=pool))
        url = f"{web.url.replace('http', 'ws', 1)}/ws/agents/"
        sockets = [stack.enter_context(Wire(url, token)) for _ in threads]
        client = stack.enter_context(httpx.Client(headers={"Authorization": f"Token {token}"}, trust_env=False))
        for thread in threads:
            for socket_of_user in sockets:
                socket_of_user.tell(type="subscribe", id="s", thread=str(thread.pk))
            response = client.get(f"{web.url}/agents/threads/{thread.pk}/", timeout=20)
            assert response.status_code == 200, response.text
        for thread, socket_of_user in itertools.product(threads, sockets):
            socket_of_user.until("snapshot", thread=str(thread.pk))


@contextlib.contextmanager
def pgbouncer(server: PostgresUnderTest) -> Iterator[str]:
    """Run PgBouncer in transaction mode in front of a server; yields the URL of the database through it."""
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not Path(program).exists():
        pytest.skip("no PgBouncer is installed")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="durable-agents-pgbouncer-") as name:
        settings = Path(name) / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\nagents = host=127.0.0.1 port={server.port} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = transaction\n"
            "default_pool_size = 5\nmax_client_conn = 200\nunix_socket_dir =\n"
        )
        owned_by_server_user(Path(name))
        process = subprocess.Popen(
            [program, "-q", settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_server_user()
        )
        try:
            until(lambda: listens(port), seconds=10, what="PgBouncer")
            yield f"postgres://postgres@127.0.0.1:{port}/agents"
        finally:
            process.terminate()
            process.wait(10)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.mark.slow
def test_cluster_behind_pgbouncer_in_transaction_mode_and_a_worker_killed_twice_gives_all_answers(
    own_postgres: PostgresUnderTest, start_on_own: Callable[..., Cluster], model_server: ModelUnderTest
):
    """Everybody is behind it, with no more sessions than five."""
    model_server.answer_with(books_and_answers)
    with pgbouncer(own_postgres) as url, used_by_django(url, DISABLE_SERVER_SIDE_CURSORS=True):
        cluster = start_on_own(3, TEST_DATABASE_URL=url, TEST_DATABASE_POOLER="transaction")
        answered(cluster, kills=2)
        sessions = own_postgres.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = 'agents'")
        assert sessions[0][0] <= 5
        cluster.stop()
        thread = Thread.objects.latest("created_at")
        assert export_thread(thread)["messages"]


def test_doctor_behind_pgbouncer_asks_for_the_setting_that_it_needs(own_postgres: PostgresUnderTest):
    with pgbouncer(own_postgres) as url:
        problems = doctor(own_postgres.env | {"TEST_DATABASE_URL": url})[1]
        assert "DISABLE_SERVER_SIDE_CURSORS" in " ".join(problem["hint"] for problem in problems)
        fine = doctor(own_postgres.env | {"TEST_DATABASE_URL": url, "TEST_DATABASE_POOLER": "transaction"})[1]
        assert not any("SERVER_SIDE" in problem["hint"] for problem in fine)
    direct = doctor(own_postgres.env)[1]
    assert not any("SERVER_SIDE" in problem["hint"] for problem in direct)
