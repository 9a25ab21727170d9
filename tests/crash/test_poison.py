"""A row that kills its worker every time: it is ended, and takes nobody with it."""

import json

import pytest

from durable_agents import create_thread
from durable_agents.models import Stream, ToolCall
from tests.crash.talk import asked, said, was_told, words
from tests.proof import FULL
from tests.servers.model import Call, Reply
from tests.workers import at_rest, text_in, until

CRASH_LIMIT = 10 if FULL else 2
LIMITED = {"TEST_DURABLE_AGENTS": json.dumps({"CRASH_LIMIT": CRASH_LIMIT})}
BYSTANDERS = [f"bystander {number}" for number in range(4)]


def script(path, seconds):
    """The poisoned thread has its tool kill the worker; the others are in a long answer."""

    def answer(request):
        if asked(request) != "Die.":
            return Reply(text=words(60, asked(request)), delay_seconds=0.05)
        if was_told(request):
            return Reply(text="I see.")
        return Reply(calls=(Call(name="die", arguments={"path": str(path), "seconds": seconds}),))

    return answer


def with_bystanders():
    """Return threads that are in the middle of an answer."""
    threads = [create_thread("talker", prompt=name) for name in BYSTANDERS]
    until(lambda: Stream.objects.held().count() == len(threads), seconds=20)
    return threads


def all_are_answered(bystanders):
    """Whether each has its answer, once."""
    rested = at_rest(*bystanders, seconds=60)
    expected = [[("user", [name]), ("assistant", [words(60, name)])] for name in BYSTANDERS]
    return {thread.status for thread in rested} == {"completed"} and [said(one) for one in bystanders] == expected


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 3], ids=["at-once", "after-its-trial"])
def test_a_tool_that_kills_its_worker_is_ended_and_bystanders_are_answered(
    start, model_server, tmp_path, prove, seconds
):
    path = tmp_path / "deaths"
    model_server.answer_with(script(path, seconds))
    start(3, **LIMITED)
    bystanders = with_bystanders()
    poisoned = create_thread("toolbox", prompt="Die.")
    assert all_are_answered(bystanders)
    [poisoned] = at_rest(poisoned, seconds=60 + (10 + 5 * seconds) * CRASH_LIMIT)
    call = ToolCall.objects.get(thread=poisoned)
    deaths = len(text_in(path).split())
    prove(f"ended after {deaths} deaths, {call.lonely_crashes + 1} of them alone (CRASH_LIMIT {CRASH_LIMIT})")
    assert (poisoned.status, call.status, call.error_code) == ("completed", "failed", "crashed")
    assert deaths >= 2 + CRASH_LIMIT
    assert said(poisoned)[-1] == ("assistant", ["I see."])


@pytest.mark.slow
def test_a_step_that_kills_its_worker_fails_its_thread_and_no_other(start, model_server, tmp_path):
    model_server.answer_with(script(tmp_path, 0))
    start(3, **LIMITED)
    bystanders = with_bystanders()
    cursed = create_thread("cursed", prompt="Die.")
    assert all_are_answered(bystanders)
    [cursed] = at_rest(cursed, seconds=60 + 10 * CRASH_LIMIT)
    assert (cursed.status, cursed.error_code) == ("failed", "crashed")
    assert Stream.objects.filter(thread=cursed, is_alone=True).count() == CRASH_LIMIT


@pytest.mark.slow
def test_several_rows_of_one_bad_tool_are_all_ended(start, model_server, tmp_path):
    """Their workers die at the same time, again and again."""
    path = tmp_path / "deaths"
    model_server.answer_with(script(path, 0))
    start(4, **LIMITED)
    poisoned = [create_thread("toolbox", prompt="Die.") for _ in range(4)]
    bystander = create_thread("talker", prompt=BYSTANDERS[0])
    at_rest(*poisoned, seconds=120 + 40 * CRASH_LIMIT)
    assert set(ToolCall.objects.values_list("status", "error_code")) == {("failed", "crashed")}
    at_rest(bystander, seconds=60)
    assert said(bystander)[-1] == ("assistant", [words(60, BYSTANDERS[0])])
