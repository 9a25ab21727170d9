"""A worker that is slow but not dead: what it does counts while its lease lasts, and not after."""

import os
import signal
import time

import psutil
import pytest
from django.db import OperationalError, connection, transaction

from durable_agents import create_thread
from durable_agents.models import Delta, Message, Stream, Thread, ToolCall
from tests.crash.talk import asked, said, was_told, words
from tests.proof import FULL
from tests.servers.model import Call, Reply
from tests.workers import at_rest, holder_of, text_in, until

SHORT_LEASE = {"TEST_DURABLE_AGENTS": '{"LEASE_SECONDS": 3}'}
TOOL_SECONDS = 10
TABLES = (Thread, Message, Stream, ToolCall, Delta)


@pytest.mark.slow
def test_worker_stopped_beyond_its_lease_changes_no_row(start, model_server, tmp_path, prove):
    """SIGSTOP in the middle of an answer and of a tool; SIGCONT when both threads have long been at rest."""
    path = tmp_path / "notes"
    call = Call(name="note", arguments={"path": str(path), "text": "ran", "seconds": TOOL_SECONDS})
    model_server.answer_with(
        lambda request: Reply(calls=(call,)) if asked(request) == "Run." else Reply(text=words(900), delay_seconds=0.1)
    )
    start(2, **SHORT_LEASE)
    talk = create_thread("talker", prompt="Talk.")
    until(lambda: Delta.objects.filter(stream__thread=talk).count() > 3)
    errand = create_thread("toolbox", prompt="Run.")
    until(lambda: text_in(path))
    began, zombie = time.monotonic(), holder_of(talk)
    assert holder_of(errand) == zombie
    model_server.answer_with(lambda request: Reply(text=words(10, asked(request))))
    stop_outside_a_transaction(zombie)
    try:
        start(2, **SHORT_LEASE)
        at_rest(talk, errand, seconds=30)
        until(lambda: time.monotonic() > began + TOOL_SECONDS, seconds=TOOL_SECONDS)
        before = rows()
    finally:
        os.kill(zombie, signal.SIGCONT)
    assert model_server.wait_for_end(0, seconds=5) == "client left"
    time.sleep(3)  # for the tool's late outcome, and whatever else the worker still has in mind
    assert psutil.Process(zombie).status() != psutil.STATUS_STOPPED
    assert rows() == before
    prove(f"{sum(map(len, before.values()))} rows of two threads are as they were when the stopped worker went on")
    assert said(talk)[-1] == ("assistant", [words(10, "Talk.")])
    assert said(errand)[-1] == ("assistant", [words(10, "Run.")])
    assert text_in(path) == "ran\n"
    assert ToolCall.objects.get(thread=errand).status == "unknown"


def rows() -> dict[str, list[dict]]:
    """Everything that a worker could write."""
    return {table.__name__: list(table.objects.order_by("pk").values()) for table in TABLES}


def stop_outside_a_transaction(pid: int) -> None:
    """SIGSTOP it when it holds no lock of the database: on SQLite nobody could write before it goes on, and on
    PostgreSQL nobody would reap what it has locked."""
    for _ in range(100):
        os.kill(pid, signal.SIGSTOP)
        until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        if not anything_is_locked():
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.03)
    raise AssertionError("The worker is always in a transaction.")


def anything_is_locked() -> bool:
    """Whether somebody holds SQLite's write lock, or on PostgreSQL any row that a worker locks."""
    if connection.vendor == "sqlite":
        connection.cursor().execute("PRAGMA busy_timeout = 100")
    try:
        with transaction.atomic():
            for table in (Thread, Stream, ToolCall) if connection.vendor != "sqlite" else ():
                list(table.objects.select_for_update(nowait=True))
    except OperationalError:
        return True
    finally:
        if connection.vendor == "sqlite":
            connection.cursor().execute("PRAGMA busy_timeout = 20000")
    return False


@pytest.mark.slow
def test_tool_longer_than_the_queues_timeout_runs_once(start, model_server, tmp_path, prove):
    """django-q2 thinks its task timed out, and delivers it again, again and again."""
    seconds = 55 if FULL else 14
    path = tmp_path / "notes"
    call = Call(name="note", arguments={"path": str(path), "text": "ran", "seconds": seconds})
    model_server.answer_with(Reply(calls=(call,)), Reply(text="Done."))
    cluster = start(2, TEST_Q_TIMEOUT="8", TEST_Q_RETRY="10")
    [thread] = at_rest(create_thread("toolbox", prompt="Go."), seconds=seconds + 30)
    assert thread.status == "completed"
    assert path.read_text() == "ran\n"
    assert [(call.status, call.attempt, call.crashes) for call in ToolCall.objects.all()] == [("completed", 1, 0)]
    assert was_told(model_server.requests[-1]) == ["wrote ran"]
    deliveries = cluster.log.count("durable_agents.engine.work")
    prove(f"a tool of {seconds} s ran once; notifications were delivered {deliveries} times")
