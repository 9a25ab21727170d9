"""Workers are killed with SIGKILL; the run goes on in another one."""

import os
import signal
import time

import pytest

from durable_agents import create_thread
from durable_agents.models import Delta, Message, Stream, ToolCall
from durable_agents.transcript import ui_messages
from tests.servers.model import Call, ModelUnderTest, Reply
from tests.workers import Cluster, at_rest, holder_of, running, until, written


@pytest.fixture
def cluster(worker_env, model_server):
    with running(worker_env, workers=3, TEST_MODEL_URL=model_server.url) as cluster:
        yield cluster


def test_worker_killed_mid_stream_answer_stands_once(cluster: Cluster, model_server: ModelUnderTest):
    story = " ".join(f"word{number}" for number in range(100))
    model_server.answer_with(Reply(text=story, delay_seconds=0.05), Reply(text=story, delay_seconds=0.005))
    thread = create_thread("talker", prompt="Tell me a story.")
    until(lambda: Delta.objects.filter(stream__thread=thread).count() >= 5)
    os.kill(holder_of(thread), signal.SIGKILL)
    killed_at = time.time()

    [thread] = at_rest(thread)
    messages = ui_messages(Message.objects.shown().filter(thread=thread))
    assert [part["text"] for part in messages[-1]["parts"] if part["type"] == "text"] == [story]
    waited = model_server.journal[-1].received_at - killed_at
    assert waited < 5, f"the second attempt's request left {waited:.1f} s after the kill"
    first, second = Stream.objects.filter(thread=thread)
    assert (first.finish_reason, second.finish_reason) == ("crashed", "stop")
    assert (second.attempt, second.crashes) == (1, 1)


def test_worker_killed_mid_tool_plain_tool_is_not_run_again(cluster: Cluster, model_server, tmp_path):
    plain, again = tmp_path / "plain", tmp_path / "again"
    calls = (
        Call(name="note", arguments={"path": str(plain), "text": "ran", "seconds": 60}),
        Call(name="note_again", arguments={"path": str(again), "seconds": 3}),
    )
    model_server.answer_with(Reply(calls=calls), Reply(text="I understand."))
    thread = create_thread("toolbox", prompt="Note it.")
    until(lambda: written(plain) and written(again))
    os.kill(holder_of(thread), signal.SIGKILL)

    [thread] = at_rest(thread)
    assert plain.read_text() == "ran\n"
    keys = again.read_text().split()
    assert len(keys) == 2
    assert len(set(keys)) == 1
    statuses = dict(ToolCall.objects.filter(thread=thread).values_list("tool_name", "status"))
    assert statuses == {"note": "unknown", "note_again": "completed"}
    told = [message["content"] for message in model_server.requests[-1]["messages"] if message["role"] == "tool"]
    assert "may or may not have run" in told[0]
