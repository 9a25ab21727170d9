"""Editing and regenerating over the socket: everybody who watches sees what is gone and what is new."""

import pytest

from durable_agents import add_message, create_thread, stop_thread
from durable_agents.models import Message, Thread
from tests.websocket.sockets import act


@pytest.fixture
async def talk(declare, user):
    """Return a thread at rest in which a question was answered."""
    thread = await act(create_thread, declare("revised", public=True), owner=user)
    await act(add_message, thread, "user", "One?")
    await act(add_message, thread, "assistant", "1.")
    return thread


async def shown_ids(thread):
    """Return the shown ids of the messages, in order."""
    return [message.shown_id for message in await act(lambda: list(Message.objects.shown().filter(thread=thread)))]


async def test_an_edited_message_takes_the_place_of_the_old_one(connect, talk):
    """In every tab, under its id."""
    mine, other = await connect(), await connect()
    for socket in (mine, other):
        await socket.ask(type="subscribe", thread=str(talk.pk))
    question, answer = await shown_ids(talk)
    edit = {"type": "edit", "thread": str(talk.pk), "message": question, "prompt": "Two?", "key": "k"}
    told = await mine.ask(**edit)
    assert (told["type"], told["message"]["id"]) == ("ok", question)
    for socket in (mine, other):
        frames = await socket.hear_status("streaming")
        changes = [frame for frame in frames if frame["type"] in {"removed", "message"}]
        assert sorted(changes[0]["ids"]) == sorted([question, answer])
        assert [frame["message"]["role"] for frame in changes[1:]] == ["user", "assistant"]
        assert changes[1]["message"] == told["message"]
    assert await mine.ask(**edit) == told
    assert await act(Message.objects.filter(text="Two?").count) == 1


@pytest.mark.parametrize("named", [False, True])
async def test_an_answer_is_made_anew(connect, talk, named):
    """The last, or the one that is named."""
    socket = await connect()
    await socket.ask(type="subscribe", thread=str(talk.pk))
    question, answer = await shown_ids(talk)
    told = await socket.ask(type="regenerate", thread=str(talk.pk), **({"message": question} if named else {}))
    assert told["message"]["role"] == "assistant"
    frames = await socket.hear_status("streaming")
    assert [frame["ids"] for frame in frames if frame["type"] == "removed"] == [[answer]]
    assert await shown_ids(talk) == [question, told["message"]["id"]]


REFUSED = [
    ({"type": "edit", "message": "nobody", "prompt": "X"}, "message_not_found"),
    ({"type": "edit", "prompt": "X"}, "invalid_frame"),
    ({"type": "edit", "message": "question", "prompt": ""}, "invalid_parts"),
    ({"type": "edit", "message": "question", "parts": "X"}, "invalid_parts"),
    ({"type": "edit", "message": "question"}, "invalid_parts"),
    ({"type": "edit", "message": "answer", "prompt": "X"}, "invalid_parts"),
    ({"type": "regenerate", "message": "nobody"}, "message_not_found"),
]


@pytest.mark.parametrize(("frame", "code"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
async def test_what_cannot_be_is_refused_with_its_code(connect, talk, frame, code):
    """And changes nothing."""
    socket = await connect()
    question, answer = await shown_ids(talk)
    names = {"question": question, "answer": answer}
    given = {**frame, "message": names.get(frame["message"], frame["message"])} if "message" in frame else frame
    assert (await socket.ask(thread=str(talk.pk), **given))["code"] == code
    assert await shown_ids(talk) == [question, answer]
    assert (await act(Thread.objects.get, pk=talk.pk)).status == "completed"


async def test_while_a_run_is_on_nothing_is_rewritten(connect, talk):
    """Stop it first; then the same key counts."""
    socket = await connect()
    question, _ = await shown_ids(talk)
    await socket.ask(type="send", thread=str(talk.pk), prompt="Two?")
    regenerate = {"type": "regenerate", "thread": str(talk.pk), "key": "k"}
    assert (await socket.ask(**regenerate))["code"] == "thread_busy"
    assert (await socket.ask(type="edit", thread=str(talk.pk), message=question, prompt="X"))["code"] == "thread_busy"
    await act(stop_thread, talk)
    assert (await socket.ask(**regenerate))["type"] == "ok"
