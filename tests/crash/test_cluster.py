"""All processes of a cluster are killed at once, or the one that the others wait for; runs go on."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from durable_agents import create_thread
from durable_agents.models import Stream, Thread, ToolCall
from tests.crash.talk import asked, first_requests, have_begun, said, was_told, words
from tests.servers.model import Call, Reply
from tests.workers import at_rest, is_alive, text_in, until

ALL_TOOLS_AT_ONCE = {"TEST_DURABLE_AGENTS": '{"TOOL_THREADS": 60}'}


def begin(count: int, agents: tuple[str, ...] = ("talker",)) -> dict[str, Thread]:
    """So many threads, each with a question of its own, of these agents in turn."""
    names = [f"question{number}" for number in range(count)]
    return {name: create_thread(agents[n % len(agents)], prompt=name) for n, name in enumerate(names)}


def recovery(successor, threads: dict[str, Thread], journal, *, soon: list[str]) -> str:
    """See how soon the successor has won all threads, and has asked the model for those named, which wait for nothing
    else. Returns both for the proof."""
    claims = [successor.claimed_at(thread) - successor.ready_at for thread in threads.values()]
    asked_again = first_requests(journal)
    requests = [asked_again[name] - successor.ready_at for name in soon]
    assert max(claims) < 2
    assert max(requests) < 4
    return (
        f'after the first worker\'s "ready for work" all {len(claims)} are claimed within {max(claims):.2f} s, '
        f"and the model is asked for {len(requests)} from {min(requests):.2f} to {max(requests):.2f} s"
    )


@pytest.mark.slow
def test_all_processes_killed_mid_stream_new_cluster_answers(start, model_server, rounds, prove):
    count = rounds(30)
    model_server.answer_with(lambda request: Reply(text=words(6000, asked(request)), delay_seconds=0.1))
    cluster = start(3)
    threads = begin(count)
    until(lambda: have_begun(count), seconds=60)
    cluster.kill_all()
    model_server.answer_with(lambda request: Reply(text=words(20, asked(request)), delay_seconds=0.05))
    asked_before = len(model_server.journal)

    successor = start(3)
    at_rest(*threads.values(), seconds=60)
    assert successor.log.index("INFO reap") < successor.log.index("ready for work")
    again = model_server.journal[asked_before:]
    prove(f"{count} answers cut; " + recovery(successor, threads, again, soon=list(threads)))
    for name, thread in threads.items():
        assert said(thread) == [("user", [name]), ("assistant", [words(20, name)])]
        attempts = Stream.objects.filter(thread=thread)
        assert [(s.finish_reason, s.attempt, s.crashes) for s in attempts] == [("crashed", 1, 0), ("stop", 1, 1)]


@pytest.mark.slow
def test_all_processes_killed_mid_tool_each_call_has_one_outcome(start, model_server, rounds, tmp_path, prove):
    """Every second thread waits for plain tools only, the others for one that runs again as well."""
    count = rounds(30)

    def script(request):
        if was_told(request):
            return Reply(text=f"Done, {asked(request)}.")
        return Reply(calls=calls_of(tmp_path, asked(request)))

    model_server.answer_with(script)
    cluster = start(3, **ALL_TOOLS_AT_ONCE)
    threads = begin(count, agents=("toolbox",))
    until(lambda: len(begun_tools(tmp_path)) == 2 * count, seconds=60)
    assert ToolCall.objects.held().count() == 2 * count
    cluster.kill_all()
    asked_before = len(model_server.journal)

    successor = start(3, **ALL_TOOLS_AT_ONCE)
    rested = at_rest(*threads.values(), seconds=120)
    assert {thread.status for thread in rested} == {"completed"}
    again = model_server.journal[asked_before:]
    plain = [name for name in threads if not runs_again(name)]
    prove(f"{count} threads in tools; " + recovery(successor, threads, again, soon=plain))
    outcomes = Counter(ToolCall.objects.values_list("tool_name", "status"))
    listed = ", ".join(f"{number} of {tool} {status}" for (tool, status), number in outcomes.items())
    prove(f"one outcome for each of {2 * count} calls: {listed}")
    retried = sum(map(runs_again, threads))
    assert dict(outcomes) == {("note", "unknown"): 2 * count - retried, ("note_again", "completed"): retried}
    for name, thread in threads.items():
        assert said(thread) == [("user", [name]), ("assistant", [f"Done, {name}."])]
        assert_ran_as_declared(tmp_path, name)
    told = [was_told(exchange.body) for exchange in again]
    assert sorted(len(results) for results in told) == [2] * count
    assert all("may or may not have run" in first for first, _ in told)


def runs_again(name: str) -> bool:
    """Whether the second call of this thread is of the tool that may run again."""
    return int(name.removeprefix("question")) % 2 == 1


def calls_of(folder: Path, name: str) -> tuple[Call, Call]:
    plain = Call(name="note", arguments={"path": str(folder / f"{name} plain"), "text": "ran", "seconds": 60})
    path = str(folder / f"{name} other")
    if runs_again(name):
        return plain, Call(name="note_again", arguments={"path": path, "seconds": 10})
    return plain, Call(name="note", arguments={"path": path, "text": "ran", "seconds": 60})


def begun_tools(folder: Path) -> list[str]:
    """What the tools have written."""
    return [line for path in folder.iterdir() for line in path.read_text().splitlines()]


def assert_ran_as_declared(folder: Path, name: str) -> None:
    """A plain tool ran once; one that may run again ran twice, with the same key."""
    assert text_in(folder / f"{name} plain") == "ran\n"
    lines = text_in(folder / f"{name} other").split()
    assert (len(lines), len(set(lines))) == ((2, 1) if runs_again(name) else (1, 1))


def test_idle_worker_killed_with_the_queue_lock_next_notification_is_served(start, model_server, rounds, prove):
    model_server.answer_with(Reply(text="Yes."))
    cluster = start(3)
    waits = []
    for number in range(rounds(50)):
        victim = holder_of_queue_lock(cluster)
        asked_before = len(model_server.journal)
        os.kill(victim, signal.SIGKILL)
        killed_at = time.time()
        thread = create_thread("talker", prompt=f"Are you there after {number}?")
        [thread] = at_rest(thread)
        assert thread.status == "completed"
        waits.append(model_server.journal[asked_before].received_at - killed_at)
        until(lambda victim=victim: not is_alive(victim) and len(cluster.workers) >= 3, seconds=20)
    prove(f"{len(waits)} kills; the next request left after {max(waits):.2f} s at most")
    assert max(waits) < 2


def holder_of_queue_lock(cluster) -> int:
    """The idle worker that holds the queue's read lock: for whom other workers wait, by the kernel (proc_locks(5))."""

    def holder() -> int | None:
        workers, owner = set(cluster.workers), None
        for line in Path("/proc/locks").read_text().splitlines():
            waits, pid = "->" in line, int(pid_of(line))
            if not waits:
                owner = pid
            elif {owner, pid} <= workers:
                return owner
        return None

    return until(holder, seconds=20, what="a worker in the queue's read lock")


def pid_of(line: str) -> str:
    """The process of a line of /proc/locks: its fifth field, the "->" of a waiter left out."""
    return line.replace("->", "").split()[4]
