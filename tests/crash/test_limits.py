"""A worker that cannot start threads, by a limit of the system's, harms no call and makes room for others."""

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

from durable_agents import create_thread
from durable_agents.models import Stream, Thread, ToolCall, WorkerProblem
from tests.crash.talk import asked, have_begun, said, was_told, words
from tests.servers.model import Call, ModelUnderTest, Reply
from tests.servers.postgres import PostgresUnderTest
from tests.workers import Cluster, as_user, at_rest, holder_of, until

BOTH_WORK = '{"PROCESSES": 2, "TOOL_THREADS": 4}'


@pytest.fixture
def nobody() -> str | None:
    """Return a user whom limits bind, which they do not root; None for the one who runs the tests."""
    if os.getuid() != 0:
        return None
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv is installed")
    return "nobody"


def adds(request: dict) -> Reply:
    if asked(request) == "Wait.":
        return Reply(text=words(100), delay_seconds=0.1)
    if was_told(request):
        return Reply(text="Added.", delay_seconds=0)
    return Reply(calls=(Call(name="add", arguments={"a": 1, "b": 2}),), delay_seconds=0)


def ask(count: int) -> list[Thread]:
    return [create_thread("toolbox", prompt="Add.") for _ in range(count)]


def cannot_start_threads(pid: int, user: str | None) -> None:
    """Bind one process, as its own user: who has more threads than this already."""
    subprocess.run([*(as_user(user) if user else []), "prlimit", f"--pid={pid}", "--nproc=1:1"], check=True)


@pytest.mark.slow
def test_worker_that_cannot_start_threads_leaves_calls_to_others_and_leaves(
    own_postgres: PostgresUnderTest,
    start_on_own: Callable[..., Cluster],
    model_server: ModelUnderTest,
    nobody: str | None,
    prove,
):
    model_server.answer_with(adds)
    cluster = start_on_own(2, user=nobody, TEST_DURABLE_AGENTS=BOTH_WORK)
    at_rest(*ask(12), seconds=60)
    # A worker that has run nothing yet has no threads at all: it would leave at its first task, with no row to leave.
    waiting = create_thread("toolbox", prompt="Wait.")
    until(lambda: have_begun(1), seconds=30)
    victim = holder_of(waiting)
    cannot_start_threads(victim, nobody)
    rounds = 0
    while "this worker leaves" not in cluster.log and rounds < 40:
        rounds += 1
        assert {thread.status for thread in at_rest(*ask(12), seconds=60)} == {"completed"}
    left_to_others = cluster.log.count("a row was left to others")
    assert left_to_others >= 3, "the limit was not felt"
    until(lambda: victim not in cluster.workers, seconds=30, what=lambda: cluster.log)
    calls = ToolCall.objects.values_list("status", "attempt", "crashes")
    assert set(calls) == {("completed", 1, 0)}
    assert all(said(thread)[-1] == ("assistant", ["Added."]) for thread in Thread.objects.exclude(pk=waiting.pk))
    problem = WorkerProblem.objects.get(kind="threads")
    assert "can't start new thread" in problem.detail
    until(lambda: len(cluster.workers) == 2, seconds=30, what="another worker in its place")
    at_rest(*ask(4), seconds=60)
    prove(f"{left_to_others} rows left to others in {rounds} rounds of 12 calls; all completed, attempt 1")


@pytest.mark.slow
def test_only_worker_that_cannot_start_threads_is_replaced_and_the_call_runs(
    own_postgres: PostgresUnderTest,
    start_on_own: Callable[..., Cluster],
    model_server: ModelUnderTest,
    nobody: str | None,
):
    model_server.answer_with(adds)
    cluster = start_on_own(1, user=nobody)
    waiting = create_thread("toolbox", prompt="Wait.")
    until(lambda: have_begun(1), seconds=30)  # so that it is our work that the limit meets, not the queue's
    cannot_start_threads(cluster.workers[0], nobody)
    threads = at_rest(waiting, *ask(4), seconds=60)
    assert cluster.log.count("a row was left to others") >= 3, cluster.log
    assert {thread.status for thread in threads} == {"completed"}
    assert set(ToolCall.objects.values_list("status", "attempt", "crashes")) == {("completed", 1, 0)}
    assert not Stream.objects.filter(error_code__gt="").exists()
