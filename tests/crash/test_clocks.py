"""Workers whose clock is an hour away from the sender's: on SQLite, whose clock is that of each process, as well."""

import os
import signal
import time
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now

from durable_agents import add_tool_result, approve_tool_call, create_thread, resume_thread, send_message, stop_thread
from durable_agents.models import Delta, Stream, ToolCall
from tests.crash.talk import said, was_told, words
from tests.servers.model import Call, Reply, Status
from tests.workers import ROOT, at_rest, holder_of, until

CALLS = (Call(name="pay", arguments={"amount": 5}), Call(name="ask_the_warehouse", arguments={}))
HOUR = 3600
SECONDS = 15


@pytest.fixture(params=[-HOUR, HOUR], ids=["behind", "ahead"])
def shifted(request, start, worker_env):
    """Return a function that starts a cluster whose clock is an hour behind, or ahead."""

    def begin(workers=2, **extra):
        path = f"{ROOT / 'tests' / 'clock'}{os.pathsep}{worker_env['PYTHONPATH']}"
        cluster = start(workers, PYTHONPATH=path, TEST_CLOCK_SECONDS=str(request.param), **extra)
        until(lambda: cluster.log)
        apart = float(cluster.log.split(maxsplit=1)[0]) - time.time()
        assert abs(apart - request.param) < 60, "the fault is there"
        return cluster

    return begin


def test_workers_on_another_clock_answer_at_once(shifted, model_server):
    model_server.answer_with(Reply(calls=(Call(name="add", arguments={"a": 1, "b": 2}),)), Reply(text="Three."))
    shifted()
    [thread] = at_rest(create_thread("toolbox", prompt="Add."), seconds=SECONDS)
    assert thread.status == "completed"
    assert said(thread)[-1] == ("assistant", ["Three."])
    model_server.answer_with(Reply(text="Once more."))
    send_message(thread, "And now?")
    at_rest(thread, seconds=SECONDS)
    assert said(thread)[-1] == ("assistant", ["Once more."])


@pytest.mark.slow
def test_workers_on_another_clock_start_with_what_is_due(shifted, model_server):
    threads = [create_thread("talker", prompt="Hello.") for _ in range(3)]
    shifted()
    assert {thread.status for thread in at_rest(*threads, seconds=SECONDS)} == {"completed"}


def test_workers_on_another_clock_run_what_was_approved_or_answered(shifted, model_server):
    model_server.answer_with(lambda request: Reply(text="Thank you.") if was_told(request) else Reply(calls=CALLS))
    shifted()
    thread = create_thread("clerk", prompt="Pay.")
    until(lambda: ToolCall.objects.filter(thread=thread, status="approval_requested").exists(), seconds=SECONDS)
    until(lambda: ToolCall.objects.filter(thread=thread, needs_worker=False).exists(), seconds=SECONDS)
    pay, ask = (ToolCall.objects.get(thread=thread, tool_name=name) for name in ("pay", "ask_the_warehouse"))
    approve_tool_call(thread, pay.tool_call_id, by=None)
    until(lambda: ToolCall.objects.get(pk=pay.pk).status == "completed", seconds=SECONDS)
    add_tool_result(thread, ask.tool_call_id, {"left": 3})
    [thread] = at_rest(thread, seconds=SECONDS)
    assert said(thread)[-1] == ("assistant", ["Thank you."])


@pytest.mark.slow
def test_workers_on_another_clock_try_again_when_they_said(shifted, model_server):
    """The time of a retry is a worker's, and a worker keeps it."""
    model_server.answer_with(Status(status=429, headers={"Retry-After": "2"}), Reply(text="Hello."))
    shifted()
    [thread] = at_rest(create_thread("talker", prompt="Hello."), seconds=SECONDS)
    assert thread.status == "completed"
    first, second = (exchange.received_at for exchange in model_server.journal)
    assert 2 <= second - first < 5


@pytest.mark.slow
def test_workers_on_another_clock_take_over_from_one_that_was_killed(shifted, model_server):
    story = words(100)
    model_server.answer_with(Reply(text=story, delay_seconds=0.05), Reply(text=story))
    shifted(3)
    thread = create_thread("talker", prompt="Tell me a story.")
    until(lambda: Delta.objects.filter(stream__thread=thread).count() >= 5, seconds=SECONDS)
    os.kill(holder_of(thread), signal.SIGKILL)
    at_rest(thread, seconds=SECONDS)
    assert said(thread)[-1] == ("assistant", [story])
    assert Stream.objects.filter(thread=thread, finish_reason="crashed").count() == 1


@pytest.mark.slow
def test_workers_on_another_clock_are_stopped_and_resumed(shifted, model_server):
    model_server.answer_with(Reply(text=words(400), delay_seconds=0.05), Reply(text="To go on."))
    shifted()
    thread = create_thread("talker", prompt="Go.")
    until(lambda: Delta.objects.filter(stream__thread=thread).count() >= 5, seconds=SECONDS)
    stop_thread(thread)
    resume_thread(thread)
    [thread] = at_rest(thread, seconds=SECONDS)
    assert said(thread)[-1][1][-1] == "To go on."


@pytest.mark.slow
def test_a_wait_set_by_another_clock_shifts_by_the_difference_on_sqlite_alone(shifted, model_server, request):
    """What is due later has a time; only on a server everybody means the same one by it."""
    thread = create_thread("talker", prompt="Hello.")
    Stream.objects.filter(thread=thread).update(available_at=Now() + timedelta(seconds=20))
    shifted()
    began = time.monotonic()
    if connection.vendor == "sqlite" and "ahead" in request.node.name:
        at_rest(thread, seconds=5)
    else:
        time.sleep(2)
        assert Stream.objects.get(thread=thread).state == "pending"
        Stream.objects.filter(thread=thread).update(available_at=None)
        at_rest(thread, seconds=SECONDS)
    assert time.monotonic() - began < 18
