"""Clients that go and come again, and the stop button."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection

from durable_agents import create_thread
from durable_agents.models import Message, Stream, Thread, ToolCall
from durable_agents.testing import ScriptedModel, calls, does, run_until_idle
from tests.chat.client import Body, Chatter
from tests.chat.screen import Screen


@pytest.mark.parametrize("path", ["chat/{}/stream", "chat/{}/stream/", "chat/chatty/{}/stream"])
def test_who_comes_again_is_told_the_whole_message(me: Chatter, path: str):
    """From its start, under its id; what is stored comes in big pieces, and the rest while it is written."""
    first = me.say("Hello?").until("start")
    again: list[Body] = []

    def reload() -> None:
        first.until("text-delta").hang_up()
        again.append(me.resume(path=path).until("text-delta"))

    with ScriptedModel(["One ", does(reload), "two."]):
        run_until_idle()
    screen = Screen().take(again[0].ended().chunks)
    assert (screen.text, screen.end["type"]) == ("One two.", "finish")
    assert screen.message_id == str(Message.objects.get(role="assistant").pk)
    assert again[0].is_done


def test_a_replay_has_every_step_of_the_message(me: Chatter):
    """Those of before an approval, too; each as few pieces."""
    me.say("Count.").until("start").hang_up()
    again: list[Body] = []
    with ScriptedModel(
        ["Let me.", calls("add", a=1, b=2)], [does(lambda: again.append(me.resume().until("finish-step"))), "Three."]
    ):
        run_until_idle()
    body = again[0].ended()
    screen = Screen().take(body.chunks)
    assert [part["type"] for part in screen.parts] == ["step-start", "text", "tool-add", "step-start", "text"]
    assert body.kinds.count("text-delta") == 2
    assert screen.text == "Let me.Three."


def test_several_readers_see_the_same(me: Chatter):
    """Each from the start."""
    first = me.say("Hello?").until("start")
    others: list[Body] = []

    def come() -> None:
        others.extend(me.resume().until("text-delta") for _ in range(2))

    with ScriptedModel(["One ", does(come), "two."]):
        run_until_idle()
    assert {Screen().take(body.ended().chunks).text for body in (first, *others)} == {"One two."}


def test_there_is_nothing_to_resume_at_rest(me: Chatter):
    """Never a 404: clients ask on each load of a page."""
    body = me.say("Hello?").until("start")
    with ScriptedModel("Hello."):
        run_until_idle()
    body.ended()
    for chat in ("c1", str(Thread.objects.get().pk), "unknown", "0" * 300, "%00", "a%2Fb"):
        assert me.resume(chat).ended().status == 204


def test_a_foreign_chat_is_as_one_that_is_not_there(me: Chatter, chatter: Callable[..., Chatter]):
    """While it runs, by either id."""
    me.say("Hello?").until("start").hang_up()
    other, thread = chatter("other"), Thread.objects.get()
    for chat in ("c1", str(thread.pk)):
        assert other.resume(chat).ended().status == 204
        assert other.stop(chat).status_code == 404
        assert other.stop(chat).json()["code"] == "thread_not_found"
    assert me.resume(str(thread.pk)).until("start").status == 200
    assert Thread.objects.get().is_running
    me.stop()


def test_a_chat_of_an_internal_agent_is_as_one_that_is_not_there(me: Chatter):
    """Its owner has it in Python only."""
    owner = get_user_model().objects.get()
    thread = create_thread("internal", owner=owner, prompt="Hi", client_id="hidden")
    for chat in (str(thread.pk), "hidden"):
        assert me.resume(chat).ended().status == 204
        assert me.stop(chat).status_code == 404
    assert me.say("Hello?", chat="hidden").problem == (404, "thread_not_found")
    assert Message.objects.filter(thread=thread, role="user").count() == 1


def test_a_stop_ends_every_open_response(me: Chatter):
    """Texts and the step are closed, and what was said is kept."""
    first = me.say("Hello?").until("start")
    other: list[Body] = []
    said: list[Any] = []

    def stop() -> None:
        first.until("text-delta")
        other.append(me.resume().until("text-delta"))
        said.append(me.stop())

    with ScriptedModel(["One ", does(stop), "two."]):
        run_until_idle()
    assert (said[0].status_code, said[0].json()) == (200, {"status": "stopped"})
    for body in (first, *other):
        assert Screen().take(body.ended().chunks).end == {"type": "abort"}
        assert body.kinds[-3:] == ["text-end", "finish-step", "abort"]
        assert body.is_done
    assert Stream.objects.get().text.strip() == "One"
    assert me.resume().ended().status == 204


def test_a_stop_before_the_first_word_ends_the_response(me: Chatter):
    """There is nothing to close."""
    body = me.say("Hello?").until("start")
    assert me.stop(path="chat/chatty/{}/stop").json() == {"status": "stopped"}
    assert body.ended().kinds == ["start", "abort"]


def test_a_stop_at_rest_does_nothing(me: Chatter):
    """As often as it comes, with or without a body."""
    body = me.say("Hello?").until("start")
    with ScriptedModel("Hello."):
        run_until_idle()
    body.ended()
    for given in (None, {}, {"messageId": None}):
        assert me.stop(body=given).json() == {"status": "completed"}
    assert me.stop(path="chat/{}/stop/").status_code == 200


@pytest.mark.parametrize("name", ["messageId", "streamId"])
def test_a_stop_that_means_something_else_comes_too_late(me: Chatter, name: str):
    """It was meant for the answer before."""
    body = me.say("One?").until("start")
    old = {"messageId": body.only("start")["messageId"], "streamId": str(Stream.objects.get().pk)}
    with ScriptedModel("One."):
        run_until_idle()
    body.ended()
    running = me.say("Two?", message="m2").until("start")
    assert me.stop(body={name: old[name]}).json() == {"status": "streaming"}
    assert me.stop(body={name: "nonsense"}).json() == {"status": "streaming"}
    now = {"messageId": running.only("start")["messageId"], "streamId": str(Stream.objects.latest("number").pk)}
    assert me.stop(body={name: now[name]}).json() == {"status": "stopped"}
    assert running.ended().kinds[-1] == "abort"


def test_the_question_names_its_answer_to_a_stop(me: Chatter):
    """The client may not have heard of the answer yet."""
    me.say("Hello?").until("start").hang_up()
    assert me.stop(body={"messageId": "m1"}).json() == {"status": "stopped"}


def test_a_stop_cancels_calls_that_wait(me: Chatter):
    """The client is told nothing: it has no response open."""
    body = me.say("Pay.").until("start")
    with ScriptedModel(calls("pay", amount=1)):
        run_until_idle()
    body.ended()
    assert me.stop().json() == {"status": "stopped"}
    assert ToolCall.objects.get().status == "cancelled"


@pytest.mark.parametrize("body", [{"messageId": ["x"]}, {"messageId": 7}, {"streamId": "x" * 300}])
def test_a_stop_that_is_none_is_refused(me: Chatter, body: dict[str, Any]):
    """And stops nothing."""
    running = me.say("Hello?").until("start")
    assert me.stop(body=body).status_code == 400
    assert me.stop().json() == {"status": "stopped"}
    running.ended()


def test_an_unknown_chat_cannot_be_stopped(me: Chatter):
    """It is not begun by that either."""
    assert me.stop("unknown").json()["code"] == "thread_not_found"
    assert me.stop("unknown").status_code == 404
    assert Thread.objects.count() == 0


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite does not count connections")
def test_responses_that_wait_hold_no_connection(chatter: Callable[..., Chatter]):
    """Thirty that nobody answers, and as many connections as the server has threads to look with, at most."""
    # One user may have only 20 streams open.
    people = [chatter("ann"), chatter("bob")]
    chats = [(people[number % 2], f"c{number}") for number in range(30)]
    bodies = [person.say("Hello?", chat=chat).until("start") for person, chat in chats]
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        [held] = cursor.fetchone()
    assert held < 15
    for (person, chat), body in zip(chats, bodies, strict=True):
        person.stop(chat)
        body.ended()
