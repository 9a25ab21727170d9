"""One worker of a running cluster is killed with SIGKILL; its runs go on in another one."""

import os
import signal
import time
from pathlib import Path
from uuid import UUID

import pytest

from durable_agents import create_thread
from durable_agents.models import Delta, Stream, ToolCall
from tests.crash.talk import asked, first_requests, said, was_told, words
from tests.servers.model import Call, Reply
from tests.workers import at_rest, holder_of, text_in, until


def test_worker_killed_mid_stream_answer_stands_once(start, model_server):
    start(3)
    story = words(100)
    model_server.answer_with(Reply(text=story, delay_seconds=0.05), Reply(text=story, delay_seconds=0.005))
    thread = create_thread("talker", prompt="Tell me a story.")
    until(lambda: Delta.objects.filter(stream__thread=thread).count() >= 5)
    os.kill(holder_of(thread), signal.SIGKILL)
    killed_at = time.time()

    [thread] = at_rest(thread)
    assert said(thread)[-1] == ("assistant", [story])
    waited = model_server.journal[-1].received_at - killed_at
    assert waited < 5, f"the second attempt's request left {waited:.1f} s after the kill"
    first, second = Stream.objects.filter(thread=thread)
    assert (first.finish_reason, second.finish_reason) == ("crashed", "stop")
    assert (second.attempt, second.crashes) == (1, 1)


def test_worker_killed_mid_tool_plain_tool_is_not_run_again(start, model_server, tmp_path):
    start(3)
    plain, again = tmp_path / "plain", tmp_path / "again"
    calls = (
        Call(name="note", arguments={"path": str(plain), "text": "ran", "seconds": 60}),
        Call(name="note_again", arguments={"path": str(again), "seconds": 3}),
    )
    model_server.answer_with(Reply(calls=calls), Reply(text="I understand."))
    thread = create_thread("toolbox", prompt="Note it.")
    until(lambda: text_in(plain) and text_in(again))
    os.kill(holder_of(thread), signal.SIGKILL)

    [thread] = at_rest(thread)
    assert plain.read_text() == "ran\n"
    keys = again.read_text().split()
    assert len(keys) == 2
    assert len(set(keys)) == 1
    statuses = dict(ToolCall.objects.filter(thread=thread).values_list("tool_name", "status"))
    assert statuses == {"note": "unknown", "note_again": "completed"}
    assert "may or may not have run" in was_told(model_server.requests[-1])[0]


def script(folder: Path, pace_seconds: float):
    """Threads called "toolbox ..." have a tool run for 20 seconds, the others a long answer."""

    def answer(request):
        name = asked(request)
        if name.startswith("toolbox") and not was_told(request):
            call = Call(
                name="note", arguments={"path": str(folder / name), "text": "ran", "seconds": 200 * pace_seconds}
            )
            return Reply(calls=(call,))
        return Reply(text=words(200, name), delay_seconds=pace_seconds)

    return answer


def held_by() -> dict[str, set[UUID]]:
    """The threads of which each worker holds a row."""
    rows = [*Stream.objects.held(), *ToolCall.objects.held()]
    return {
        owner: {row.thread_id for row in rows if row.lease_owner == owner} for owner in {r.lease_owner for r in rows}
    }


@pytest.mark.slow
def test_worker_killed_with_many_rows_all_go_on_within_seconds(start, model_server, rounds, prove, tmp_path):
    """Half of the threads are in a long answer, half in a tool; what the other worker holds is not disturbed."""
    count = rounds(30)
    model_server.answer_with(script(tmp_path, 0.1))
    start(3, TEST_DURABLE_AGENTS='{"TOOL_THREADS": 30}')
    names = [f"{('talker', 'toolbox')[number % 2]} {number}" for number in range(count)]
    threads = {name: create_thread(name.split()[0], prompt=name) for name in names}
    until(lambda: len(list(tmp_path.iterdir())) == count // 2, seconds=60)
    until(lambda: sum(map(len, held_by().values())) == count)
    model_server.answer_with(script(tmp_path, 0.01))
    asked_before = len(model_server.journal)
    holder, lost = max(held_by().items(), key=lambda item: len(item[1]))
    os.kill(int(holder.split(":")[-2]), signal.SIGKILL)
    killed_at = time.time()

    at_rest(*threads.values(), seconds=90)
    again = first_requests(model_server.journal[asked_before:])
    waits = [again[name] - killed_at for name, thread in threads.items() if thread.pk in lost]
    prove(f"{len(waits)} of {count} threads lost their worker; the model is asked again within {max(waits):.2f} s")
    assert max(waits) < 5
    crashed = {*Stream.objects.filter(crashes=1).values_list("thread_id", flat=True)}
    unknown = {*ToolCall.objects.filter(status="unknown").values_list("thread_id", flat=True)}
    assert crashed | unknown == lost
    for name, thread in threads.items():
        assert said(thread) == [("user", [name]), ("assistant", [words(200, name)])]
    assert all(text_in(path) == "ran\n" for path in tmp_path.iterdir())
