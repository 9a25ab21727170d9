"""The database takes no writes for a while, as in a failover, and then it does; nobody restarts anything."""

import time
from collections.abc import Callable

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client

from durable_agents import create_thread
from durable_agents.models import Stream, Thread, WorkerProblem
from tests.crash.diagnosis import doctor
from tests.crash.talk import asked, have_begun, said, words
from tests.servers.model import ModelUnderTest, Reply
from tests.servers.postgres import PostgresUnderTest
from tests.workers import Cluster, at_rest, until

READ_ONLY_SECONDS = 10
REFUSED = "in a read-only transaction"


def begun(count: int) -> dict[str, Thread]:
    """So many threads, whose answers are being streamed."""
    threads = {f"question{number}": create_thread("talker", prompt=f"question{number}") for number in range(count)}
    until(lambda: have_begun(count), seconds=60)
    return threads


def read_only(server: PostgresUnderTest, *, by: str = "database") -> None:
    """Let every session begin anew while none may write, and then let new ones write: the old ones still may not."""
    setting = f"ALTER {'SYSTEM' if by == 'system' else 'DATABASE agents'} SET default_transaction_read_only = "
    try:
        for value in ("on", "off"):
            server.execute(setting + value)
            server.execute("SELECT pg_reload_conf()")
            if value == "on":
                assert server.cut_sessions() > 0
                time.sleep(READ_ONLY_SECONDS)
    finally:
        connection.close()


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
    assert "takes no writes" in texts
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
def test_database_read_only_for_ten_seconds_all_answers_come_without_a_restart(
    own_postgres: PostgresUnderTest, start_on_own: Callable[..., Cluster], model_server: ModelUnderTest, prove
):
    model_server.answer_with(lambda request: Reply(text=words(60, asked(request)), delay_seconds=0.1))
    cluster = start_on_own(2, TEST_DURABLE_AGENTS='{"PROCESSES": 2}')
    workers = set(cluster.workers)
    threads = begun(15)
    assert all_have_worked(cluster)
    read_only(own_postgres)
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
