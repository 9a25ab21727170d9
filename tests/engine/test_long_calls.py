"""A worker's model call is bounded in its silence and in its whole length."""

import json

import pytest

from durable_agents import create_thread
from durable_agents.models import Message, Stream
from durable_agents.transcript import ui_messages
from tests.llm.wire import Wire, WireServer, says, stop, whole
from tests.workers import at_rest, running


@pytest.fixture
def model_server():
    with WireServer() as server:
        yield server


def test_a_slow_server_is_called_once_and_an_endless_answer_is_given_up(worker_env, model_server):
    """Silent for a second at most, four seconds in all."""
    bounds = json.dumps({"MODEL_READ_SECONDS": 1, "MODEL_CALL_SECONDS": 4})
    slow = Wire(pieces=(*[": wait\n\n"] * 8, *says("Hello ", "you"), stop()), pause_seconds=0.25)
    endless = Wire(pieces=(*says("One "), *[": wait\n\n"] * 100), pause_seconds=0.25)
    with running(worker_env, workers=2, TEST_MODEL_URL=model_server.url, TEST_DURABLE_AGENTS=bounds):
        model_server.answer_with(slow)
        [kept] = at_rest(create_thread("talker", prompt="Hi"))
        assert (kept.status, len(model_server.requests)) == ("completed", 1)

        model_server.answer_with(endless, whole(*says("Two")))
        [tried_again] = at_rest(create_thread("talker", prompt="Hi"))
    [_, answer] = ui_messages(Message.objects.shown().filter(thread=tried_again))
    assert [part["text"] for part in answer["parts"] if part["type"] == "text"] == ["Two"]
    first, second = Stream.objects.filter(thread=tried_again).order_by("number")
    assert (first.error_code, second.finish_reason) == ("network", "stop")
    assert "MODEL_CALL_SECONDS" in first.error_detail
