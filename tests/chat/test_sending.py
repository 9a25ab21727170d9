"""Sending a message over the AI SDK's endpoint, and what comes back while it is answered."""

from durable_agents.models import Message, Thread
from durable_agents.testing import ScriptedModel, run_until_idle
from tests.chat.client import Chatter


def test_a_message_begins_a_thread_and_is_answered(me: Chatter):
    """The chat's id becomes the thread's client_id, the message's id the message's."""
    body = me.say("Hello?").until("start")
    with ScriptedModel("Hello there."):
        run_until_idle()
    body.ended()
    thread = Thread.objects.get()
    answer = Message.objects.get(role="assistant")
    assert thread.client_id == "c1"
    assert Message.objects.get(role="user").client_id == "m1"
    assert body.kinds[0] == "start"
    assert body.said == "Hello there."
    assert body.only("start")["messageId"] == str(answer.pk)
    assert body.kinds[-2:] == ["finish-step", "finish"]
    assert body.is_done
    print(body.chunks)
