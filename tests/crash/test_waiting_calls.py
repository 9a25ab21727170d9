"""Calls that a worker holds while they wait for a slot: fast tools have become slow, and the worker is killed."""

import os
import signal
from collections import Counter
from pathlib import Path

from durable_agents import create_thread
from durable_agents.models import Thread, ToolCall
from tests.crash.talk import asked, was_told
from tests.servers.model import Call, Reply
from tests.workers import at_rest, holder_of, text_in, until

FAST = 6
ONE_AT_A_TIME = {"TEST_DURABLE_AGENTS": '{"TOOL_THREADS": 1}'}


def note(path: Path, text: str, seconds: float = 0) -> Reply:
    """Return an answer that calls the tool, which may not run twice."""
    return Reply(calls=(Call(name="note", arguments={"path": str(path), "text": text, "seconds": seconds}),))


def lines_in(folder: Path) -> list[str]:
    """Return the lines that the calls have written."""
    return text_in(folder / "lines").splitlines()


def many(model_server, tmp_path: Path, *, count: int, seconds: float) -> list[Thread]:
    """Return threads each of which makes some fast calls, and then a slow one of the same tool."""

    def answer(request):
        made = len(was_told(request))
        if made < FAST:
            return note(tmp_path / "fast", "ran")
        return note(tmp_path / "lines", asked(request), seconds) if made == FAST else Reply(text="Good.")

    model_server.answer_with(answer)
    return [create_thread("toolbox", prompt=f"call {number}") for number in range(count)]


def test_worker_killed_only_the_calls_that_had_begun_are_unknown(start, model_server, tmp_path):
    start(2, TEST_DURABLE_AGENTS='{"TOOL_THREADS": 4}')
    threads = many(model_server, tmp_path, count=14, seconds=3)
    until(lambda: len(lines_in(tmp_path)) == 4 and ToolCall.objects.held().count() >= 6, seconds=60)
    os.kill(holder_of(ToolCall.objects.held()[0].thread), signal.SIGKILL)
    begun = lines_in(tmp_path)

    at_rest(*threads, seconds=150)
    calls = ToolCall.objects.filter(thread__in=threads, arguments__seconds__gt=0)
    assert sorted(lines_in(tmp_path)) == sorted(f"call {number}" for number in range(14)), "each ran, and ran once"
    assert Counter(calls.values_list("status", flat=True)) == {"unknown": len(begun), "completed": 14 - len(begun)}
    assert not calls.filter(crashes__gt=0, status="completed").exists(), "those that waited did not kill the worker"


def test_calls_that_wait_for_long_are_left_to_another_worker(start, model_server, tmp_path):
    """With three workers of which two work at once; each runs one call at a time."""
    start(3, **ONE_AT_A_TIME)
    threads = many(model_server, tmp_path, count=8, seconds=1.5)
    at_rest(*threads, seconds=150)
    assert sorted(lines_in(tmp_path)) == [f"call {number}" for number in range(8)]
    calls = ToolCall.objects.filter(thread__in=threads, arguments__seconds__gt=0)
    ended = sorted(calls.values_list("finished_at", flat=True))
    assert set(calls.values_list("status", flat=True)) == {"completed"}
    assert (ended[-1] - ended[0]).total_seconds() < 7 * 1.5, "one worker ran them all"
