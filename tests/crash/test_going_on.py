"""A model that can goes on, and does not begin again, when its worker was killed in the middle of an answer."""

import os
import signal
from collections.abc import Iterator

import pytest

from durable_agents import create_thread
from durable_agents.models import Delta, Message, Stream
from durable_agents.transcript import ui_messages
from tests.llm.wire import Wire, WireServer, anthropic, anthropic_opening, text_block
from tests.workers import at_rest, holder_of, until


@pytest.fixture
def model_server() -> Iterator[WireServer]:
    with WireServer() as server:
        yield server


def test_killed_worker_leaves_a_text_that_the_next_attempt_goes_on_with(start, model_server):
    begun = text_block("Once upon ", "a time").events(0)[:-1]
    model_server.answer_with(
        Wire(pieces=(anthropic_opening(), *begun), ending="hanging"), anthropic(text_block(" there was a worker."))
    )
    start(3)
    thread = create_thread("novelist", prompt="Tell me a story.")
    # The first delta may have been stored before the second piece of text arrived.
    until(lambda: "a time" in str(Delta.objects.filter(stream__thread=thread).values_list("chunks", flat=True)))
    os.kill(holder_of(thread), signal.SIGKILL)

    [thread] = at_rest(thread)
    [_, answer] = ui_messages(Message.objects.shown().filter(thread=thread))
    assert [part.get("text") for part in answer["parts"]] == [None, "Once upon a time there was a worker."]
    asked = model_server.requests[-1]["messages"]
    assert asked[-1] == {"role": "assistant", "content": [{"type": "text", "text": "Once upon a time"}]}
    first, second = Stream.objects.filter(thread=thread)
    assert (first.finish_reason, second.finish_reason) == ("crashed", "stop")
    assert (first.usage_estimated, first.output_tokens > 0, first.input_tokens > 0) == (True, True, True)
    assert thread.output_tokens == first.output_tokens + second.output_tokens
