"""What the worker's own code stores in deltas is what its steps say: a listener may change over at any point."""

import pytest

from durable_agents import Streaming, create_thread, list_messages, stream_thread
from durable_agents.models import Delta
from durable_agents.parts import joined
from durable_agents.reading.follow_run import Follower, _position
from durable_agents.testing import ScriptedModel, calls, does, fails, run_until_idle, says, thinks
from tests.python_api.listener import Listener

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("tool_input_deltas", [False, True])
def test_a_run_is_told_the_same_while_it_goes_on_and_afterwards(declare, tool_input_deltas):
    """Reasoning, text, calls and a second step, looked at after every fragment; each look may be the last."""
    declare(streaming=Streaming(tool_input_deltas=tool_input_deltas))
    thread = create_thread("tested", prompt="Say a word")
    told, follower = [], Follower(thread.pk, None)

    def look():
        told.extend(follower.read())

    looking = does(look)
    first = [thinks("Hm, "), looking, thinks("a word."), looking, says("I "), looking, says("will."), looking]
    with ScriptedModel([*first, calls("plain", word="x"), looking, calls("plain", word="y"), looking], ["Do", "ne."]):
        run_until_idle()
    look()
    assert len(told) > 15
    Delta.objects.all().delete()
    shown = [(message.id, message.parts) for message in list_messages(thread) if message.role == "assistant"]
    for count in range(1, len(told) + 1):
        listener = Listener().take(told[:count])
        assert listener.take(stream_thread(thread, listener.cursor)).shown() == shown
    if not tool_input_deltas:
        whole = joined(chunk for _, chunk in stream_thread(thread))
        assert joined(chunk for _, chunk in told) == whole


def test_an_attempt_that_fails_is_taken_back(agent):
    """Whoever listened shows the next one only."""
    thread = create_thread("tested", prompt="Say a word")
    listener = Listener()

    def look():
        listener.take(Follower(thread.pk, listener.cursor and _position(listener.cursor)).read())

    with ScriptedModel([says("Half"), does(look), fails("network")], "Whole."):
        run_until_idle()
    assert "Half" in str(listener.shown())
    listener.take(stream_thread(thread, listener.cursor))
    assert [message.parts for message in list_messages(thread)][1:] == [parts for _, parts in listener.shown()]
    assert "Half" not in str(listener.shown())
