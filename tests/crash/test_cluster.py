"""Whole clusters die, drain and lose their locks; runs go on."""

import json
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from durable_agents import create_thread
from durable_agents.models import Delta, Message, Stream, Thread, ToolCall
from durable_agents.transcript import ui_messages
from tests.servers.model import Call, Reply
from tests.workers import at_rest, holder_of, until, written

DRAIN_SECONDS = 8 if os.environ.get("PROOF") == "full" else 3


def answer_of(thread: Thread) -> list[str]:
    last = ui_messages(Message.objects.shown().filter(thread=thread))[-1]
    return [part["text"] for part in last["parts"] if part["type"] == "text"]


def words(count: int) -> str:
    return " ".join(f"word{number}" for number in range(count))


@pytest.mark.slow
def test_all_processes_killed_mid_stream_new_cluster_answers(start, model_server, rounds, prove):
    count = rounds(300)
    model_server.answer_with(Reply(text=words(2000), delay_seconds=0.1))
    cluster = start(3)
    threads = [create_thread("talker", prompt="Go.") for _ in range(count)]
    until(lambda: Stream.objects.held().count() == count and Delta.objects.count() > 2 * count, seconds=60)
    cluster.kill_all()
    model_server.answer_with(Reply(text=words(20), delay_seconds=0.05))
    asked = len(model_server.journal)

    successor = start(3)
    ready_at = time.time()
    until(lambda: len(model_server.journal) >= asked + count, seconds=30)
    first = model_server.journal[asked].received_at - ready_at
    prove(f"{count} threads; first model request {first:+.2f} s after the successor's last worker was ready")
    assert first < 4
    for thread in at_rest(*threads, seconds=60):
        assert answer_of(thread) == [words(20)]
        assert [s.finish_reason for s in Stream.objects.filter(thread=thread)] == ["crashed", "stop"]
    assert successor.process.poll() is None


@pytest.mark.slow
def test_all_processes_killed_mid_tool_each_call_has_one_outcome(start, model_server, rounds, tmp_path, prove):
    count = rounds(100)
    path = str(tmp_path / "notes")
    calls = (
        Call(name="note", arguments={"path": path, "text": "ran", "seconds": 10}),
        Call(name="wait", arguments={"seconds": 10}),
    )
    model_server.answer_with(Reply(calls=calls))
    cluster = start(3)
    threads = [create_thread("toolbox", prompt="Go.") for _ in range(count)]
    until(lambda: ToolCall.objects.held().filter(tool_name="note").count() >= min(count, 8), seconds=60)
    cluster.kill_all()
    ran = len((tmp_path / "notes").read_text().split())
    model_server.answer_with(Reply(text="Done."))

    start(3)
    rested = at_rest(*threads, seconds=120)
    assert {thread.status for thread in rested} == {"completed"}
    assert not ToolCall.objects.open().exists()
    outcomes = Counter(ToolCall.objects.values_list("tool_name", "status"))
    lines = len((tmp_path / "notes").read_text().split())
    prove(f"{count} threads; {ran} notes had run at the kill, {lines} in the end; outcomes: {dict(outcomes)}")
    assert set(outcomes) <= {(tool, status) for tool in ("note", "wait") for status in ("completed", "unknown")}
    assert sum(outcomes.values()) == 2 * count
    assert lines == ran + outcomes["note", "completed"]


def test_idle_worker_killed_with_the_queue_lock_next_doorbell_is_served(start, model_server, rounds, prove):
    model_server.answer_with(Reply(text="Yes."))
    cluster = start(3)
    waits = []
    for _ in range(rounds(50)):
        os.kill(holder_of_queue_lock(cluster), signal.SIGKILL)
        began = time.time()
        asked = len(model_server.journal)
        thread = create_thread("talker", prompt="Are you there?")
        until(lambda asked=asked: len(model_server.journal) > asked, seconds=10)
        waits.append(model_server.journal[asked].received_at - began)
        [thread] = at_rest(thread)
        assert thread.status == "completed"
        until(lambda: len(cluster.workers) >= 3, seconds=20)
    prove(f"{len(waits)} kills; the next request left after {max(waits):.2f} s at most")
    assert max(waits) < 2


def holder_of_queue_lock(cluster) -> int:
    """The idle worker that holds the queue's read lock, by the kernel's list of locks (proc_locks(5))."""

    def holders() -> list[int]:
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" not in line]
        holding = {int(fields[4]) for fields in lines if fields[1] == "POSIX" and fields[3] == "WRITE"}
        return [pid for pid in cluster.workers if pid in holding]

    return until(holders, seconds=10, what="a worker in the queue's read lock")[0]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["main", "group", "ctrl-c"])
def test_drain_hands_the_thread_on(how, start, model_server, prove):
    settings = {"TEST_DURABLE_AGENTS": json.dumps({"DRAIN_SECONDS": DRAIN_SECONDS})}
    leaving = start(2, **settings)
    model_server.answer_with(Reply(text=words(6000), delay_seconds=0.1), Reply(text=words(30), delay_seconds=0.01))
    thread = create_thread("talker", prompt="Tell me everything.")
    holder_of(thread)
    staying = start(2, **settings)
    until(lambda: Delta.objects.filter(stream__thread=thread).count() > 3)
    processes = leaving.processes()
    told_at = time.monotonic()
    if how == "main":
        leaving.process.terminate()
    else:
        os.killpg(leaving.process.pid, signal.SIGTERM if how == "group" else signal.SIGINT)

    until(lambda: Stream.objects.filter(thread=thread, finish_reason="released").exists(), seconds=20)
    released_at, asked_after = time.time(), len(model_server.journal)
    until(lambda: len(model_server.journal) >= 2, seconds=10)
    _, left = psutil.wait_procs(processes, timeout=DRAIN_SECONDS + 4 - (time.monotonic() - told_at))
    gone = time.monotonic() - told_at
    assert not left
    [thread] = at_rest(thread)
    went_on = model_server.journal[1].received_at - released_at
    prove(f"{len(processes)} processes gone after {gone:.1f} s, the thread went on after {went_on:.2f} s")
    assert asked_after in {1, 2}
    assert went_on < 2
    assert answer_of(thread) == [words(30)]
    assert [(s.attempt, s.crashes) for s in Stream.objects.filter(thread=thread)] == [(1, 0), (1, 0)]
    assert staying.process.poll() is None


@pytest.mark.slow
def test_worker_stopped_beyond_its_lease_changes_no_row(start, model_server):
    short = {"TEST_DURABLE_AGENTS": '{"LEASE_SECONDS": 3}'}
    start(2, **short)
    model_server.answer_with(Reply(text=words(400), delay_seconds=0.1), Reply(text=words(10)))
    thread = create_thread("talker", prompt="Go.")
    zombie = holder_of(thread)
    until(lambda: Delta.objects.filter(stream__thread=thread).count() > 3)
    os.kill(zombie, signal.SIGSTOP)
    try:
        start(2, **short)
        [thread] = at_rest(thread, seconds=30)
        before = list(Stream.objects.filter(thread=thread).values()), Delta.objects.count()
    finally:
        os.kill(zombie, signal.SIGCONT)
    assert model_server.wait_for_end(0, seconds=5) == "client left"
    after = list(Stream.objects.filter(thread=thread).values()), Delta.objects.count()
    usage_may_come_late = [{**row, "rev": 0, "model": ""} for row in after[0]]
    assert [(row["state"], row["parts"], row["fence"]) for row in usage_may_come_late] == [
        (row["state"], row["parts"], row["fence"]) for row in before[0]
    ]
    assert after[1] == before[1]
    assert answer_of(thread) == [words(10)]


@pytest.mark.slow
def test_tool_longer_than_the_queues_timeout_runs_once(start, model_server, tmp_path):
    path = tmp_path / "notes"
    call = Call(name="note", arguments={"path": str(path), "text": "ran", "seconds": 14})
    model_server.answer_with(Reply(calls=(call,)), Reply(text="Done."))
    start(2, TEST_Q_TIMEOUT="8", TEST_Q_RETRY="10")
    [thread] = at_rest(create_thread("toolbox", prompt="Go."), seconds=60)
    assert thread.status == "completed"
    assert path.read_text() == "ran\n"


def test_hanging_sync_tool_does_not_keep_the_cluster_from_draining(start, model_server, tmp_path):
    path = tmp_path / "notes"
    call = Call(name="note", arguments={"path": str(path), "text": "hangs", "seconds": 600})
    model_server.answer_with(Reply(calls=(call,)), Reply(text="Done."))
    cluster = start(2, TEST_DURABLE_AGENTS='{"DRAIN_SECONDS": 1}')
    create_thread("toolbox", prompt="Go.")
    until(lambda: written(path))
    processes = cluster.processes()
    cluster.process.terminate()
    _, left = psutil.wait_procs(processes, timeout=6)
    assert not left


@pytest.mark.slow
def test_tool_that_blocks_the_loop_takes_no_other_thread_down(start, model_server):
    block = Reply(calls=(Call(name="block_the_loop", arguments={}),))
    slow = Reply(text=words(100), delay_seconds=0.1)

    def script(request):
        last = request["messages"][-1]
        if last["role"] == "tool":
            return Reply(text="I see.")
        return block if last["content"] == "Block." else slow

    model_server.answer_with(script)
    start(3, TEST_DURABLE_AGENTS='{"LEASE_SECONDS": 3, "CRASH_LIMIT": 1}')
    bystanders = [create_thread("talker", prompt="Go.") for _ in range(4)]
    until(lambda: Stream.objects.held().count() == 4)
    blocker = create_thread("toolbox", prompt="Block.")
    rested = at_rest(*bystanders, blocker, seconds=120)
    assert {thread.status for thread in rested} == {"completed"}
    for thread in bystanders:
        assert answer_of(thread) == [words(100)]
    call = ToolCall.objects.get(thread=blocker)
    assert call.status == "failed"
    assert re.search("may or may not have run", call.error)
