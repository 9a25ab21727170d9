"""A stop takes effect at once, whatever the run is doing and whether or not a worker lives."""

import os
import signal
import time

from durable_agents import create_thread, resume_thread, send_message, stop_thread
from durable_agents.models import Delta, Message, Stream, ToolCall
from tests.crash.talk import said, words
from tests.servers.model import Call, Reply, Status
from tests.workers import at_rest, holder_of, text_in, until


def stopped(thread) -> float:
    """Stop it, and see that it is stopped now and not later. Returns when the stop was through."""
    stop_thread(thread)
    stopped_at = time.monotonic()
    thread.refresh_from_db()
    assert thread.status == "stopped"
    assert not Stream.objects.open().filter(thread=thread).exists()
    assert not ToolCall.objects.open().filter(thread=thread).exists()
    return stopped_at


def test_stop_while_anything_goes_on(start, model_server, tmp_path, rounds, prove):
    """One cluster for all, since starting one costs seconds."""
    cluster = start(3)
    waits = [during_a_slow_stream(model_server) for _ in range(rounds(20))]
    prove(f"{len(waits)} slow streams stopped; the model's server sees the connection closed within {max(waits):.2f} s")
    assert max(waits) < 1
    during_a_tool(model_server, tmp_path)
    during_backoff(model_server)
    with_queued_messages(model_server)
    with_a_dead_worker(model_server)
    cluster.stop()
    with_no_worker(start, model_server)
    prove("as well: during a tool, in backoff, with queued messages, with a dead worker, with no worker")


def during_a_slow_stream(server) -> float:
    """Returns the seconds from the stop until the model's server saw its connection closed."""
    server.answer_with(Reply(text=words(600), delay_seconds=0.1), Reply(text="Yes?"))
    asked_before = len(server.journal)
    thread = create_thread("talker", prompt="Talk.")
    until(lambda: Delta.objects.filter(stream__thread=thread).count() >= 3)
    stopped_at = stopped(thread)
    assert server.wait_for_end(asked_before, seconds=3) == "client left"
    waited = time.monotonic() - stopped_at
    [kept] = said(thread)[-1][1]
    assert kept
    assert words(600).startswith(kept)
    until(lambda: Stream.objects.get(thread=thread).output_tokens > 0, what="the usage of the stopped attempt")
    stream = Stream.objects.get(thread=thread)
    assert stream.usage_estimated
    assert stream.model == "openai/test"
    send_message(thread, "Are you there?")
    [thread] = at_rest(thread)
    assert said(thread) == [
        ("user", ["Talk."]),
        ("assistant", [kept]),
        ("user", ["Are you there?"]),
        ("assistant", ["Yes?"]),
    ]
    assert thread.output_tokens > stream.output_tokens
    return waited


def during_a_tool(server, tmp_path) -> None:
    path = tmp_path / "notes"
    call = Call(name="note", arguments={"path": str(path), "text": "ran", "seconds": 3})
    server.answer_with(Reply(calls=(call,)), Reply(text="I see."))
    thread = create_thread("toolbox", prompt="Note it.")
    until(lambda: text_in(path))
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


def with_queued_messages(server) -> None:
    """What was queued waits for a resume, and is then answered one by one."""
    server.answer_with(Reply(text=words(600), delay_seconds=0.1), *[Reply(text=f"Answer {n}.") for n in range(3)])
    thread = create_thread("patient", prompt="Talk.")
    until(lambda: Delta.objects.filter(stream__thread=thread).count() >= 3)
    for text in ("One?", "Two?"):
        send_message(thread, text)
    stopped(thread)
    time.sleep(1)
    thread.refresh_from_db()
    assert thread.status == "stopped"
    assert Message.objects.queued().filter(thread=thread).count() == 2
    resume_thread(thread)
    [thread] = at_rest(thread)
    assert thread.status == "completed"
    [_, (_, first), *rest] = said(thread)
    assert first[1:] == ["Answer 0."]  # the run that was stopped goes on first
    assert rest == [("user", ["One?"]), ("assistant", ["Answer 1."]), ("user", ["Two?"]), ("assistant", ["Answer 2."])]


def with_a_dead_worker(server) -> None:
    server.answer_with(Reply(text=words(600), delay_seconds=0.1), Reply(text="Yes?"))
    thread = create_thread("talker", prompt="Talk.")
    os.kill(holder_of(thread), signal.SIGKILL)
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
