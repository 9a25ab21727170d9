"""Every way to follow an answer, under each ASGI server that the documentation names."""

import importlib.util
import os
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User

from durable_agents import add_tool_result, create_thread, send_message
from durable_agents.models import ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.chat.agents import chatty
from tests.chat.client import Body, Chatter, wait_for
from tests.chat.screen import Screen
from tests.chat.server import Server
from tests.chat.socket import connected as chat_socket
from tests.chat.socket import shown
from tests.processes import database_url
from tests.websocket.real import connected
from tests.websocket.sockets import cookie_of


@pytest.fixture(scope="module", params=["daphne", "uvicorn", "hypercorn"])
def server(request: pytest.FixtureRequest, django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Return a running server of each kind."""
    if importlib.util.find_spec(request.param) is None:
        # Where everything must hold nothing is left out.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{request.param} is not installed")
    with Server(child_env | {"TEST_DATABASE_URL": database_url()}, kind=request.param) as running:
        yield running
        broken = ["Internal Server Error", "Exception inside application", "Error in ASGI Framework", "Traceback"]
        assert [words for words in broken if words in running.log] == [], running.log


def test_a_chat_is_answered_and_joined_by_others(me: Chatter):
    """Chunks come while the answer is written; a response that waits goes on."""
    first = me.say("Please.").until("start")
    with ScriptedModel(calls("ask_the_warehouse", sku="x"), "Three."):
        run_until_idle()
        assert Screen().take(first.ended().chunks).end["finishReason"] == "tool-calls"
        waiting = me.resume(path="chat/{}/stream?wait=1").until("tool-input-available")
        assert waiting.is_open
        call = ToolCall.objects.get()
        add_tool_result(call.thread, call.tool_call_id, "three left")
        run_until_idle()
    assert Screen().take(waiting.ended().chunks).text == "Three."
    assert waiting.is_done
    assert me.resume().ended().status == 204


def test_a_client_that_hangs_up_leaves_the_server_working(me: Chatter):
    """The next response comes, and nothing is logged as an error."""
    body = me.say("Hello?").until("start")
    body.hang_up()
    with ScriptedModel("Hello."):
        run_until_idle()
    assert Screen().take(me.say("Hello?").ended().chunks).text == "Hello."


def test_events_come_as_they_happen(me: Chatter):
    """Over server-sent events."""
    thread = create_thread(chatty, owner=User.objects.get())
    events = Body(me.client, "GET", f"threads/{thread.pk}/events/").until("snapshot")
    send_message(thread, "Hello?")
    with ScriptedModel("Hello."):
        run_until_idle()
    events.until("step")
    events.hang_up()
    send_message(thread, "Bye.")


def test_a_websocket_follows_and_commands(server: Server, me: Chatter):
    """With the site's own protocol."""
    user = User.objects.get()
    thread = create_thread(chatty, owner=user)
    with connected(server, cookie=cookie_of(user)) as socket:
        assert socket.ask(type="subscribe", thread=str(thread.pk))["type"] == "snapshot"
        assert socket.ask(id="r1", type="send", thread=str(thread.pk), prompt="Hello?")["type"] == "ok"
        with ScriptedModel("Hello."):
            run_until_idle()
        socket.hear_until(lambda frame: frame["type"] == "thread" and frame["status"] == "completed")
        socket.tell("nonsense")
        assert socket.end()[1] == 4400


def test_a_websocket_of_the_ai_sdk_is_answered(server: Server, me: Chatter):
    """With the frames of its transport."""
    with chat_socket(server, {"Authorization": me.client.headers["Authorization"]}) as socket:
        socket.say("r1", "Hello?")
        socket.hear_until("start")
        with ScriptedModel("Hello."):
            run_until_idle()
        assert shown(socket.hear_until("end")).text == "Hello."
    wait_for(lambda: me.client.get("threads/c1/").json()["status"] == "completed")
