"""An idempotency key belongs to its caller and command; nothing that is new is lost under a used one."""

import base64

import pytest

from durable_agents import create_thread, send_message
from durable_agents.models import Message, Thread
from tests.attachments import samples
from tests.chat.client import user_message

PNG = "data:image/png;base64," + base64.b64encode(samples.PNG).decode()


def asked(thread):
    """Return what users have said in a thread."""
    return list(Message.objects.filter(thread=thread, role="user").order_by("rev").values_list("text", flat=True))


def status(thread):
    """Return the status of a thread."""
    return Thread.objects.get(pk=thread.pk).status


def test_a_stop_with_the_key_of_a_colleagues_send_stops(ann, bob, thread):
    """The key was Ann's."""
    frame = {"thread": str(thread.pk), "key": "k1"}
    assert ann.ask(type="send", prompt="Hi", **frame)["type"] == "ok"
    assert bob.ask(type="stop", **frame)["status"] == "stopped"
    assert status(thread) == "stopped"


def test_a_send_with_the_key_of_a_colleagues_stop_is_stored(ann, bob, thread):
    """The other way round."""
    frame = {"thread": str(thread.pk), "key": "k1"}
    assert bob.ask(type="stop", **frame)["type"] == "ok"
    assert ann.ask(type="send", prompt="Hi", **frame)["message"]["parts"] == [{"type": "text", "text": "Hi"}]
    assert asked(thread) == ["Hi"]


def test_a_send_with_the_key_of_a_colleagues_send_is_stored(ann, bob, thread):
    """Even where both say the same."""
    for one in (ann, bob):
        assert one.ask(type="send", thread=str(thread.pk), key="k1", prompt="Hi")["type"] == "ok"
    assert asked(thread) == ["Hi", "Hi"]


def test_a_stop_with_a_used_key_of_ones_own_stops(ann, thread):
    """Whatever the key was for: a run that goes on costs money."""
    frame = {"thread": str(thread.pk), "key": "k1"}
    ann.ask(type="send", prompt="Hi", **frame)
    assert ann.ask(type="stop", **frame)["status"] == "stopped"
    assert status(thread) == "stopped"


def test_a_repeated_stop_does_not_stop_the_next_run(ann, thread):
    """It is the one that was answered already."""
    frame = {"type": "stop", "thread": str(thread.pk), "key": "k1"}
    send_message(thread, "Hi")
    assert ann.ask(**frame)["status"] == "stopped"
    send_message(thread, "Once more")
    assert ann.ask(**frame)["status"] == "stopped"
    assert status(thread) == "streaming"


OTHERS = {
    "another text": {"type": "send", "prompt": "Ho"},
    "another command": {"type": "resume"},
    "another command with the same content": {"type": "resume", "prompt": "Hi"},
    "a message of parts": {"type": "send", "parts": [{"type": "text", "text": "Ho"}]},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_command_under_a_used_key_of_ones_own_is_refused(ann, thread, other):
    """With a code; nothing is said to be done that is not."""
    frame = {"thread": str(thread.pk), "key": "k1"}
    ann.ask(type="send", prompt="Hi", **frame)
    answer = ann.ask(**other, **frame)
    assert (answer["type"], answer["code"], answer["retryable"]) == ("error", "idempotency_key_reused", False)
    assert asked(thread) == ["Hi"]


def test_a_command_after_a_stop_with_its_key_is_refused(ann, thread):
    """The stop was the caller's own."""
    frame = {"thread": str(thread.pk), "key": "k1"}
    ann.ask(type="stop", **frame)
    assert ann.ask(type="send", prompt="Hi", **frame)["code"] == "idempotency_key_reused"


def test_the_same_command_again_is_answered_alike_and_done_once(ann, thread):
    """With a file in it, too, and the fields in another order."""
    parts = [{"type": "text", "text": "Hi"}, {"type": "file", "mediaType": "image/png", "url": PNG}]
    frame = {"type": "send", "thread": str(thread.pk), "key": "k1", "parts": parts, "metadata": {"a": 1, "b": 2}}
    again = {**frame, "metadata": {"b": 2, "a": 1}}
    assert ann.ask(**frame) == ann.ask(**again)
    assert asked(thread) == ["Hi"]


DOORS = {
    "rest": lambda who, thread, text: who.post(
        f"threads/{thread.pk}/messages/", {"prompt": text, "client_id": "m1"}
    ).json(),
    "websocket": lambda who, thread, text: who.ask(
        type="send", thread=str(thread.pk), prompt=text, client_id="m1", key=text
    ),
    "chat": lambda who, thread, text: who.chat({"id": str(thread.pk), "messages": [user_message(text)]}),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_another_text_under_the_client_id_of_ones_own_message_stores_nothing(ann, thread, door):
    """The contract: the same client_id again gives back the same message."""
    ann.post(f"threads/{thread.pk}/messages/", {"prompt": "Hi", "client_id": "m1"})
    assert door(ann, thread, "Ho").get("code", "ok") == "ok"
    assert asked(thread) == ["Hi"]


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_the_client_id_of_a_colleagues_message_is_refused(ann, bob, thread, door):
    """Though it says the same: it is not theirs."""
    ann.post(f"threads/{thread.pk}/messages/", {"prompt": "Hi", "client_id": "m1"})
    assert door(bob, thread, "Hi")["code"] == "idempotency_key_reused"
    assert asked(thread) == ["Hi"]


def test_a_message_with_a_file_may_be_repeated_under_its_client_id(ann, thread):
    """The file came once more, and is not kept twice."""
    body = {"client_id": "m1", "parts": [{"type": "file", "mediaType": "image/png", "url": PNG}]}
    first, again = [ann.post(f"threads/{thread.pk}/messages/", body) for _ in range(2)]
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()


def test_keys_of_visitors_belong_to_their_scope(visitor, ann, team_server):
    """Nobody is signed in, and yet one is not the other."""
    thread = create_thread("chatty", scope="visitor:v1")
    frame = {"thread": str(thread.pk), "key": "k1"}
    assert ann.ask(type="send", prompt="Hi", **frame)["type"] == "ok"
    assert visitor.ask(type="send", prompt="Ho", **frame)["type"] == "ok"
    assert visitor.ask(type="send", prompt="Hey", **frame)["code"] == "idempotency_key_reused"
    assert asked(thread) == ["Hi", "Ho"]


def test_python_may_repeat_a_message_under_its_client_id(thread):
    """As a view of the project may be asked twice."""
    first = send_message(thread, "Hi", client_id="m1")

    assert send_message(thread, "Hi", client_id="m1") == first
    assert send_message(thread, "Ho", client_id="m1") == first
