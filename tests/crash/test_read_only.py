"""The database takes no writes for a while, as in a failover, and then it does; nobody restarts anything."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import httpx
import psutil
import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from rest_framework.authtoken.models import Token

from durable_agents import create_thread
from durable_agents.models import Stream, Thread, WorkerProblem
from tests.chat.server import Server
from tests.crash.diagnosis import doctor, holders
from tests.crash.talk import asked, have_begun, said, words
from tests.live.wire import Wire
from tests.servers.model import ModelUnderTest, Reply
from tests.servers.postgres import PostgresUnderTest
from tests.workers import Cluster, at_rest, until

READ_ONLY_SECONDS = 10
NEEDS_BOTH = '{"PROCESSES": 2, "STREAMS_PER_PROCESS": 10}'
"""Settings with which one process cannot stream fifteen answers."""
REFUSED = "in a read-only transaction"


def begun(count: int) -> dict[str, Thread]:
    """So many threads, whose answers are being streamed."""
    threads = {f"question{number}": create_thread("talker", prompt=f"question{number}") for number in range(count)}
    until(lambda: have_begun(count), seconds=60)
    return threads


@contextmanager
def read_only(server: PostgresUnderTest, *, by: str) -> Iterator[None]:
    """End every session and let none write that begins inside the block.

    By `database` those sessions stay read-only afterwards, too; by `system` they follow the server's settings.
    """
    setting = f"ALTER {'SYSTEM' if by == 'system' else 'DATABASE agents'} SET default_transaction_read_only = "
    connection.close()
    server.execute(setting + "on")
    server.execute("SELECT pg_reload_conf()")
    try:
        assert server.cut_sessions() > 0
        yield
    finally:
        server.execute(setting + "off")
        server.execute("SELECT pg_reload_conf()")


def all_have_worked(cluster: Cluster) -> bool:
    """Whether every worker has won a row, so that each has the connections that it keeps."""
    owners = Stream.objects.held().values_list("lease_owner", flat=True)
    return {int(owner.split(":")[-2]) for owner in owners} == set(cluster.workers)


@pytest.mark.slow
def test_worker_that_cannot_claim_for_ten_seconds_says_so_to_the_doctor_and_the_admin(
    own_postgres: PostgresUnderTest, start_on_own: Callable[..., Cluster], model_server: ModelUnderTest
):
    model_server.answer_with(lambda request: Reply(text=words(300, asked(request)), delay_seconds=0.1))
    cluster = start_on_own(2, TEST_DURABLE_AGENTS='{"PROCESSES": 2, "POOLS": {"agents": {"limit": 6}}}')
    begun(6)
    create_thread("talker", prompt="There is no room for this one yet.")
    own_postgres.set_read_only(True)
    own_postgres.cut_sessions()
    connection.close()
    until(lambda: "this worker cannot go on" in cluster.log, seconds=30, what=lambda: cluster.log)
    code, problems = doctor(own_postgres.env)
    own_postgres.set_read_only(False)
    connection.close()
    assert code == 2
    texts = " ".join(problem["text"] for problem in problems)
    assert "does not accept writes" in texts
    assert "is alive and has not been able to claim rows for" in texts
    assert REFUSED in texts
    assert "qcluster" not in " ".join(problem["hint"] for problem in problems)

    def over() -> bool:
        return WorkerProblem.objects.filter(kind="claims", ended_at__isnull=False).exists()

    until(over, seconds=30, what=lambda: f"{list(WorkerProblem.objects.values())}")
    browser = Client()
    browser.force_login(get_user_model().objects.create_superuser("ada"))
    page = browser.get("/admin/durable_agents/workerproblem/").content.decode()
    assert "claims" in page
    assert REFUSED[:20] in page
    assert not any("claim rows" in problem["text"] for problem in doctor(own_postgres.env)[1])


@pytest.mark.slow
@pytest.mark.parametrize("by", ["database", "system"])
def test_database_read_only_for_ten_seconds_all_answers_come_without_a_restart(
    own_postgres: PostgresUnderTest, start_on_own: Callable[..., Cluster], model_server: ModelUnderTest, by: str, prove
):
    model_server.answer_with(lambda request: Reply(text=words(60, asked(request)), delay_seconds=0.1))
    cluster = start_on_own(2, TEST_DURABLE_AGENTS=NEEDS_BOTH)
    workers = set(cluster.workers)
    threads = begun(15)
    assert all_have_worked(cluster)
    with read_only(own_postgres, by=by):
        time.sleep(READ_ONLY_SECONDS)
    assert cluster.log.count(REFUSED) > 0
    writable_again = time.monotonic()
    later = {f"later{number}": create_thread("talker", prompt=f"later{number}") for number in range(15)}
    at_rest(*later.values(), seconds=60)
    took = time.monotonic() - writable_again
    at_rest(*threads.values(), seconds=90)
    prove(f"{cluster.log.count(REFUSED)} refusals; {len(later)} new answers {took:.1f} s after the first write")
    for name, thread in (threads | later).items():
        assert said(thread) == [("user", [name]), ("assistant", [words(60, name)])]
    assert set(cluster.workers) == workers


SESSIONS = {"kept": {"TEST_DATABASE_SESSIONS": "kept"}, "pooled": {"TEST_DATABASE_POOL": '{"min_size": 2}'}}
"""How a web process comes to use a session again: its thread keeps it, or Django's pool does."""
ONE_THREAD = '{"WEBSOCKET_THREADS": 1}'
"""Settings with which messages by websocket use the session that has read. Others might open one of their own."""


def sent(socket: Wire, thread: Thread, name: str) -> dict[str, Any]:
    """Send a message by websocket; return the answer."""
    socket.tell(type="send", id=name, thread=str(thread.pk), prompt=name, key=name)

    def answer() -> dict[str, Any] | None:
        frames = [frame for frame in list(socket.frames) if frame.get("id") == name]
        return next((socket.frames.pop(socket.frames.index(frame)) for frame in frames), None)

    return dict(until(answer, seconds=30, what="an answer to the frame"))


def sessions_since(server: PostgresUnderTest, moment: datetime, web: Server) -> list[int]:
    """Return the ports of the sessions of a web process that began after a moment and are still open."""
    ports = list(holders([psutil.Process(web.process.pid)], server.port))
    query = "SELECT client_port FROM pg_stat_activity WHERE backend_start > %s AND client_port = ANY(%s)"
    return [port for (port,) in server.execute(query, moment, ports)]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["database", "system"])
@pytest.mark.parametrize("kind", SESSIONS)
def test_web_process_with_sessions_from_a_read_only_database_takes_messages_without_a_restart(
    own_postgres: PostgresUnderTest,
    start_on_own: Callable[..., Cluster],
    model_server: ModelUnderTest,
    by: str,
    kind: str,
    prove,
):
    """Its sessions were opened by reading, which no error has ended, while the database took no writes."""
    if kind == "pooled":
        pytest.importorskip("psycopg_pool")
    model_server.answer_with(lambda request: Reply(text=words(20, asked(request)), delay_seconds=0.02))
    start_on_own(2, TEST_DURABLE_AGENTS='{"PROCESSES": 2}')
    user = get_user_model().objects.create_user("ada")
    token = Token.objects.create(user=user).key
    names = [f"{way}{number}" for number in range(6) for way in ("rest", "socket")]
    threads = {name: create_thread("talker", owner=user) for name in names}
    with (
        Server(own_postgres.env, **SESSIONS[kind], TEST_DURABLE_AGENTS=ONE_THREAD) as web,
        Wire(f"{web.url.replace('http', 'ws', 1)}/ws/agents/", token) as socket,
        httpx.Client(headers={"Authorization": f"Token {token}"}, trust_env=False, timeout=60) as client,
    ):

        def is_taken(name: str) -> bool:
            thread = threads[name]
            if name.startswith("socket"):
                answer = sent(socket, thread, name)
                code, is_ok = answer.get("code"), answer["type"] == "ok"
            else:
                body = {"prompt": name, "key": name}
                response = client.post(f"{web.url}/agents/threads/{thread.pk}/messages/", json=body)
                code, is_ok = response.json().get("code"), response.status_code == 202
            assert is_ok or code == "database_unavailable", code
            return is_ok

        socket.tell(type="ping").until("pong")
        with read_only(own_postgres, by=by):
            [(began,)] = own_postgres.execute("SELECT now()")
            assert not any(is_taken(name) for name in names[:4])
            time.sleep(READ_ONLY_SECONDS)
            for name in names:
                client.get(f"{web.url}/agents/threads/{threads[name].pk}/").raise_for_status()
                socket.subscribe(threads[name].pk)
        kept = sessions_since(own_postgres, began, web)
        assert kept
        writable_again = len(own_postgres.log)
        refused = 0
        for name in names:
            while not is_taken(name):
                refused += 1
                assert refused <= len(kept), "an error has not ended its session"
        # The first to write on such a session may be the process itself, with its counts, and not a message.
        refusals = [line for line in own_postgres.errors_of(kept, since=writable_again) if REFUSED in line]
        assert refusals or by == "system", f"no session has stayed read-only: {own_postgres.log[writable_again:]}"
        at_rest(*threads.values(), seconds=60)
        assert web.process.poll() is None
    for name, thread in threads.items():
        assert said(thread) == [("user", [name]), ("assistant", [words(20, name)])]
    prove(f"{len(kept)} sessions kept, {len(refusals)} refusals by them, {len(names)} messages taken and answered")
