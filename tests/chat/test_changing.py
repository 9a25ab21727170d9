"""Editing, regenerating and going on: what the client's gesture means to the history that the server has."""

from typing import Any

import pytest

from durable_agents import list_messages
from durable_agents.models import Message, Thread
from durable_agents.testing import ScriptedModel, does, fails, run_until_idle
from tests.chat.client import Body, Chatter, user_message
from tests.chat.screen import Screen


def exchange(body: Body, *answers: Any) -> Screen:
    """Let the model give these answers, and return what the client then shows."""
    body.until("start")
    with ScriptedModel(*answers):
        run_until_idle()
    return Screen().take(body.ended().chunks)


@pytest.fixture
def talk(me: Chatter) -> list[Screen]:
    """Return two answers of a chat, as the client shows them."""
    return [exchange(me.say("One?"), "One."), exchange(me.say("Two?", message="m2"), "Two.")]


def history() -> list[tuple[str, str]]:
    """Return what the only thread shows: roles and texts."""
    return [(message.role, message.text) for message in list_messages(Thread.objects.get())]


def editing(text: str, message: str, **more: Any) -> dict[str, Any]:
    """Return what `sendMessage({text, messageId})` posts."""
    body = {"id": "c1", "trigger": "submit-message", "messageId": message}
    return body | {"messages": [user_message(text, message)]} | more


def regenerating(message: str = "m2", **more: Any) -> dict[str, Any]:
    """Return what `regenerate()` posts: the history up to the question."""
    return {"id": "c1", "trigger": "regenerate-message", "messages": [user_message("Two?", message)]} | more


def test_an_edit_takes_the_place_of_the_message_and_what_came_after(me: Chatter, talk: list[Screen]):
    """Under the id that the client knows."""
    screen = exchange(me.post(editing("Really?", "m1")), "Really.")
    assert screen.text == "Really."
    assert history() == [("user", "Really?"), ("assistant", "Really.")]
    assert Message.objects.shown().get(role="user").shown_id == "m1"


def test_an_edit_of_the_last_message_keeps_what_was_before(me: Chatter, talk: list[Screen]):
    """Only its own answer is replaced."""
    exchange(me.post(editing("Three?", "m2")), "Three.")
    assert [text for _, text in history()] == ["One?", "One.", "Three?", "Three."]


def test_the_same_edit_again_joins_its_answer(me: Chatter, talk: list[Screen]):
    """A retry of the transport's edits nothing."""
    first = me.post(editing("Three?", "m2")).until("start")
    second = me.post(editing("Three?", "m2")).until("start")
    with ScriptedModel("Three."):
        run_until_idle()
    assert [Screen().take(body.ended().chunks).text for body in (first, second)] == ["Three.", "Three."]
    assert [text for _, text in history()] == ["One?", "One.", "Three?", "Three."]
    assert Message.objects.filter(role="user").count() == 3


@pytest.mark.parametrize("which", ["answer", "question", "nothing"])
def test_a_regenerated_answer_takes_the_place_of_the_last(me: Chatter, talk: list[Screen], which: str):
    """Whether the client names the answer, the question, or neither."""
    named = {"answer": {"messageId": talk[1].message_id}, "question": {"messageId": "m2"}, "nothing": {}}[which]
    screen = exchange(me.post(regenerating(**named)), "Two, again.")
    assert screen.message_id != talk[1].message_id
    assert [text for _, text in history()] == ["One?", "One.", "Two?", "Two, again."]


def test_an_earlier_answer_is_regenerated_with_what_came_after(me: Chatter, talk: list[Screen]):
    """As the client shows it: its history ends with that question."""
    body = regenerating("m1", messages=[user_message("One?", "m1")], messageId=talk[0].message_id)
    exchange(me.post(body), "One, again.")
    assert [text for _, text in history()] == ["One?", "One, again."]


def test_regenerate_is_another_try_after_a_failure(me: Chatter):
    """The error was shown, the question stands."""
    assert exchange(me.say("Two?", message="m2"), fails("auth")).end["type"] == "error"
    assert exchange(me.post(regenerating()), "Two.").text == "Two."
    assert history() == [("user", "Two?"), ("assistant", "Two.")]


def test_regenerate_sends_what_never_arrived(me: Chatter):
    """The first request was refused or lost: all that the server knows of the message is this."""
    assert exchange(me.post(regenerating()), "Two.").text == "Two."
    assert exchange(me.post(regenerating("m3", messages=[user_message("Three?", "m3")])), "Three.").text == "Three."
    assert [text for _, text in history()] == ["Two?", "Two.", "Three?", "Three."]


@pytest.mark.parametrize("body", [editing("Three?", "m2"), regenerating()], ids=["edit", "regenerate"])
def test_a_run_that_is_on_is_not_changed(me: Chatter, talk: list[Screen], body: dict[str, Any]):
    """Stop it first, or wait."""
    running = me.say("Go on.", message="m3").until("start")
    assert me.post(body).problem == (409, "thread_busy")
    with ScriptedModel("Done."):
        run_until_idle()
    assert Screen().take(running.ended().chunks).text == "Done."


@pytest.mark.parametrize("trigger", ["submit-message", "regenerate-message"])
@pytest.mark.parametrize("chat", ["c1", "new"])
def test_a_message_that_is_not_there_cannot_be_changed(me: Chatter, talk: list[Screen], trigger: str, chat: str):
    """Nothing is lost by trying."""
    body = {"id": chat, "trigger": trigger, "messageId": "gone", "messages": [user_message("x", "gone")]}
    assert me.post(body).problem == (404, "message_not_found")
    assert [text for _, text in history()] == ["One?", "One.", "Two?", "Two."]


def test_an_unchanged_last_message_tries_again_what_failed(me: Chatter):
    """`sendMessage()` without an argument, where the question is the last thing that the client shows."""
    exchange(me.say("One?"), fails("auth"))
    assert exchange(me.post(editing("One?", "m1")), "One.").text == "One."
    assert Message.objects.filter(role="user").count() == 1


def test_an_unchanged_last_message_goes_on_with_what_was_stopped(me: Chatter):
    """The text so far stays, and the model goes on in the same message."""
    body = me.say("One?").until("start")
    with ScriptedModel(["Once ", does(me.stop)]):
        run_until_idle()
    assert body.ended().kinds[-1] == "abort"
    screen = exchange(me.post(editing("One?", "m1")), "and more.")
    assert screen.text.startswith("Once")
    assert screen.end["type"] == "finish"


def test_an_unchanged_last_message_is_told_its_answer(me: Chatter, talk: list[Screen]):
    """The model is not asked."""
    with ScriptedModel() as model:
        body = me.post(editing("Two?", "m2")).ended()
        run_until_idle()
    assert Screen().take(body.chunks).text == "Two."
    assert model.requests == []


def test_a_users_message_needs_an_id_of_its_own(me: Chatter, talk: list[Screen]):
    """An answer cannot be overwritten."""
    body = {"id": "c1", "messages": [user_message("FORGED", talk[1].message_id)]}
    assert me.post(body).problem == (400, "invalid_parts")
    assert [text for _, text in history()] == ["One?", "One.", "Two?", "Two."]
