"""A stop takes effect at once, whatever the run is doing and whether or not a worker lives."""

import os
import signal
import time

from durable_agents import create_thread, resume_thread, send_message, stop_thread
from durable_agents.models import Delta, Message, Stream, ToolCall
from durable_agents.transcript import ui_messages
from tests.servers.model import Call, Reply, Status
from tests.workers import at_rest, holder_of, until, written


def stopped(thread) -> None:
    """Stop it, and see that it is stopped now and not later."""
    stop_thread(thread)
    thread.refresh_from_db()
    assert thread.status == "stopped"
    assert not Stream.objects.open().filter(thread=thread).exists()
    assert not ToolCall.objects.open().filter(thread=thread).exists()


def test_stop_while_anything_goes_on(start, model_server, tmp_path):
    """One cluster for all, since starting one costs seconds."""
    cluster = start(3)
    during_a_slow_stream(model_server)
    during_a_tool(model_server, tmp_path)
    during_backoff(model_server)
    with_a_dead_worker(model_server)
    cluster.stop()
    with_no_worker(start, model_server)


def during_a_slow_stream(server) -> None:
    server.answer_with(Reply(text="word " * 600, delay_seconds=0.1), Reply(text="Yes?"))
    asked = len(server.journal)
    thread = create_thread("talker", prompt="Talk.")
    until(lambda: Delta.objects.filter(stream__thread=thread).count() >= 3)
    stopped(thread)
    began = time.monotonic()
    assert server.wait_for_end(asked, seconds=3) == "client left"
    assert time.monotonic() - began < 1.5
    kept = ui_messages(Message.objects.shown().filter(thread=thread))[-1]["parts"]
    assert kept[1]["text"].startswith("word")
    until(lambda: Stream.objects.get(thread=thread).output_tokens > 0, what="the usage of the stopped attempt")
    stream = Stream.objects.get(thread=thread)
    assert stream.usage_estimated
    assert stream.model == "openai/test"
    send_message(thread, "Are you there?")
    [thread] = at_rest(thread)
    assert ui_messages(Message.objects.shown().filter(thread=thread))[-1]["parts"][1]["text"] == "Yes?"
    assert thread.output_tokens > stream.output_tokens


def during_a_tool(server, tmp_path) -> None:
    path = tmp_path / "notes"
    call = Call(name="note", arguments={"path": str(path), "text": "ran", "seconds": 3})
    server.answer_with(Reply(calls=(call,)), Reply(text="I see."))
    thread = create_thread("toolbox", prompt="Note it.")
    until(lambda: written(path))
    stopped(thread)
    outcome = ToolCall.objects.get(thread=thread)
    assert outcome.status == "cancelled"
    assert "may or may not have run" in outcome.error
    resume_thread(thread)
    [thread] = at_rest(thread)
    assert thread.status == "completed"
    assert ToolCall.objects.get(thread=thread).status == "cancelled"


def during_backoff(server) -> None:
    server.answer_with(Status(status=429, headers={"Retry-After": "30"}), Reply(text="Better."))
    thread = create_thread("talker", prompt="Hello?")
    until(lambda: Stream.objects.filter(thread=thread, attempt=2).exists())
    thread.refresh_from_db()
    assert thread.retry["kind"] == "rate_limited"
    stopped(thread)
    assert thread.retry is None
    resume_thread(thread)
    [thread] = at_rest(thread)
    assert thread.status == "completed"


def with_a_dead_worker(server) -> None:
    server.answer_with(Reply(text="word " * 600, delay_seconds=0.1), Reply(text="Yes?"))
    thread = create_thread("talker", prompt="Talk.")
    holder = holder_of(thread)
    os.kill(holder, signal.SIGKILL)
    stopped(thread)
    time.sleep(3)
    thread.refresh_from_db()
    assert thread.status == "stopped"


def with_no_worker(start, server) -> None:
    thread = create_thread("talker", prompt="Hello?")
    stopped(thread)
    server.answer_with(Reply(text="Here."))
    send_message(thread, "Anybody?")
    start(2)
    [thread] = at_rest(thread)
    assert thread.status == "completed"
