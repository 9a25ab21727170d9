"""A real worker, a real model server: what a user sends comes back as an answer."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections, transaction

from durable_agents import create_thread, send_message, stop_thread
from durable_agents.models import Delta, Message, Stream, Thread, ToolCall
from durable_agents.transcript import ui_messages
from tests.servers.model import Call, ModelUnderTest, Reply, Status
from tests.workers import Cluster, at_rest, running, until


@pytest.fixture
def cluster(worker_env, model_server):
    with running(worker_env, workers=2, TEST_MODEL_URL=model_server.url) as cluster:
        yield cluster


def said(thread) -> list[tuple[str, list[str]]]:
    """Role and texts of each message."""
    messages = ui_messages(Message.objects.shown().filter(thread=thread))
    return [(m["role"], [part["text"] for part in m["parts"] if part["type"] == "text"]) for m in messages]


def test_worker_answers_calls_tools_and_settles_every_fault(cluster: Cluster, model_server: ModelUnderTest, tmp_path):
    """One cluster, many conversations: starting one costs seconds."""
    plain_answer(model_server)
    two_tools_then_answer(model_server, tmp_path)
    faulty_tools_are_told_to_the_model(model_server)
    refused_requests_are_tried_again(model_server)
    lasting_refusal_fails_the_thread(model_server)
    stop_closes_the_connection(model_server)
    if connection.vendor == "postgresql":
        a_thread_that_somebody_holds_holds_up_no_other(model_server)


def a_thread_that_somebody_holds_holds_up_no_other(server: ModelUnderTest) -> None:
    """As a view does that has sent a message in its transaction and then waits for something slow."""
    server.answer_with(Reply(text="Good morning to you."))
    held = create_thread("talker", prompt="Good morning!")
    with transaction.atomic():
        Thread.objects.select_for_update(no_key=True).get(pk=held.pk)
        for _ in range(3):
            hidden = in_another_thread(lambda: at_rest(create_thread("talker", prompt="Good morning!")))
            assert hidden[0].status == "completed"
        assert in_another_thread(lambda: Thread.objects.get(pk=held.pk)).status == "streaming"
    assert at_rest(held)[0].status == "completed"


def in_another_thread(function: Callable[[], Any]) -> Any:
    """Return what the function does outside of this test's transaction."""

    def call() -> Any:
        try:
            return function()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(call).result()


def plain_answer(server: ModelUnderTest) -> None:
    # Longer than the widest tick of the delta writer, so that a delta is stored before the step is committed.
    server.answer_with(Reply(text="Good morning to you.", delay_seconds=0.2))
    thread = create_thread("talker", prompt="Good morning!")
    [thread] = at_rest(thread)
    assert thread.status == "completed"
    assert said(thread) == [("user", ["Good morning!"]), ("assistant", ["Good morning to you."])]
    stream = Stream.objects.get(thread=thread)
    assert (stream.state, stream.finish_reason) == ("finished", "stop")
    assert stream.output_tokens == thread.output_tokens > 0
    assert Delta.objects.filter(stream=stream, seq=0).exists()


def two_tools_then_answer(server: ModelUnderTest, tmp_path) -> None:
    path = str(tmp_path / "notes")
    calls = (Call(name="note", arguments={"path": path, "text": "one"}), Call(name="add", arguments={"a": 2, "b": 3}))
    server.answer_with(Reply(text="Let me see.", calls=calls), Reply(text="Done."))
    [thread] = at_rest(create_thread("toolbox", prompt="Note it and add."))
    assert said(thread)[1] == ("assistant", ["Let me see.", "Done."])
    results = dict(ToolCall.objects.filter(thread=thread).values_list("tool_name", "result"))
    assert results == {"note": "wrote one", "add": 5}
    results = [message for message in server.requests[-1]["messages"] if message["role"] == "tool"]
    assert [message["content"] for message in results] == ["wrote one", "5"]


def faulty_tools_are_told_to_the_model(server: ModelUnderTest) -> None:
    names = ["refuse", "explode", "leave", "no_such_tool"]
    calls = tuple(Call(name=name, arguments={}) for name in names)
    bad = Call(name="add", arguments={"a": "x"})
    server.answer_with(Reply(calls=(*calls, bad)), Reply(text="I see."))
    [thread] = at_rest(create_thread("toolbox", prompt="Try them all."))
    assert thread.status == "completed"
    told = [message["content"] for message in server.requests[-1]["messages"] if message["role"] == "tool"]
    assert told[0] == "Error: The warehouse is closed."
    assert told[1] == told[2] == "Error: The tool failed."
    assert "no_such_tool" in told[3]
    assert "Invalid arguments" in told[4]


def refused_requests_are_tried_again(server: ModelUnderTest) -> None:
    server.answer_with(Status(status=503), Status(status=429, headers={"Retry-After": "1"}), Reply(text="At last."))
    before = len(server.journal)
    [thread] = at_rest(create_thread("talker", prompt="Hello?"))
    assert said(thread)[1] == ("assistant", ["At last."])
    times = [exchange.received_at for exchange in server.journal[before:]]
    assert len(times) == 3
    assert times[2] - times[1] >= 1
    assert [s.state for s in Stream.objects.filter(thread=thread)] == ["aborted", "aborted", "finished"]
    assert thread.retry is None


def lasting_refusal_fails_the_thread(server: ModelUnderTest) -> None:
    server.answer_with(Status(status=401, message="bad key sk-secret"))
    [thread] = at_rest(create_thread("talker", prompt="Hello?"))
    assert (thread.status, thread.error_code) == ("failed", "auth")
    assert "sk-secret" not in thread.error_message
    assert "sk-secret" in Stream.objects.get(thread=thread).error_detail


def stop_closes_the_connection(server: ModelUnderTest) -> None:
    server.answer_with(Reply(text="word " * 500, delay_seconds=0.05), Reply(text="Yes?"))
    before = len(server.journal)
    thread = create_thread("talker", prompt="Talk.")
    until(lambda: Delta.objects.filter(stream__thread=thread).count() >= 3)
    stop_thread(thread)
    thread.refresh_from_db()
    assert thread.status == "stopped"
    assert server.wait_for_end(before, seconds=2) == "client left"
    [kept] = said(thread)[1][1]
    assert kept.startswith("word")
    send_message(thread, "Still there?")
    [thread] = at_rest(thread)
    assert said(thread)[-1] == ("assistant", ["Yes?"])
