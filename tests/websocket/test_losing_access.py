"""Whoever loses the right to see a thread loses what they opened of it, whatever they call threads of their own."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import Group, User

from durable_agents import create_thread, send_message
from durable_agents.models import Thread
from tests.chat.agents import chatty
from tests.chat.client import Chatter
from tests.chat.server import Server
from tests.processes import database_url
from tests.websocket.real import connected
from tests.websocket.sockets import cookie_of


@pytest.fixture(scope="module")
def group_server(django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Return a running daphne that asks every second whether all may still be seen."""
    settings = {"POLICY": "tests.websocket.people.GroupPolicy"}
    env = child_env | {
        "TEST_DATABASE_URL": database_url(),
        "TEST_DURABLE_AGENTS": json.dumps(settings),
        "TEST_SOCKETS": json.dumps({"RECHECK_SECONDS": 1}),
    }
    with Server(env, application="tests.websocket.asgi:application") as running:
        yield running


@pytest.fixture
def shared(user: User) -> Thread:
    """Return a thread of a colleague's, which the user may see by their group; a run is on."""
    user.groups.add(Group.objects.create(name="acme"))
    return create_thread(chatty, owner=User.objects.create_user("bob"), scope="acme", prompt="Hello?")


def lose(user: User, thread: Thread) -> Thread:
    """Take the user out of the group, and let them give the thread's id to a thread of their own."""
    user.groups.clear()
    return create_thread(chatty, owner=user, client_id=str(thread.pk))


def test_a_websocket_ends_though_the_user_has_given_the_id_to_a_thread_of_theirs(group_server, cookie, user, shared):
    """Within the time of a re-check; nothing that happens afterwards is seen."""
    with connected(group_server, cookie=cookie) as socket:
        assert socket.ask(type="subscribe", thread=str(shared.pk))["type"] == "snapshot"
        lose(user, shared)
        last = socket.hear_until(lambda frame: frame["type"] == "error")[-1]
        assert (last["code"], last["thread"]) == ("thread_not_found", str(shared.pk))
        send_message(shared, "A secret.")
        socket.tell(type="ping", t=1)
        assert socket.hear()["type"] == "pong"


COMMANDS = [
    {"type": "older", "before": 9},
    {"type": "fill", "stream": "0" * 32, "from": 0},
    {"type": "send", "prompt": "Mine?"},
    {"type": "stop"},
    {"type": "approve", "tool_call_id": "c1"},
]


@pytest.mark.parametrize("frame", COMMANDS, ids=lambda frame: frame["type"])
def test_a_name_means_the_thread_that_is_followed_by_it(group_server, cookie, user, shared, frame):
    """Not another one that has the name by now: answers about two threads would mix."""
    with connected(group_server, cookie=cookie) as socket:
        socket.ask(type="subscribe", thread=str(shared.pk))
        own = lose(user, shared)
        assert socket.ask(thread=str(shared.pk), **frame)["code"] == "thread_not_found"
        assert own.messages.count() == 0
        # Asked for anew, the name is the user's own thread.
        assert socket.ask(type="subscribe", thread=str(shared.pk))["messages"] == []


@pytest.mark.parametrize("path", ["threads/{}/events/", "chat/{}/stream"])
def test_a_response_that_goes_on_ends_too(group_server, user, shared, path):
    """Server-sent events and the AI SDK's stream."""
    chatter = Chatter(group_server.url, {"Cookie": cookie_of(user)})
    body = chatter.resume(str(shared.pk), path=path).answered()
    assert body.status == 200
    lose(user, shared)
    body.ended(seconds=10)
    chatter.client.close()


def test_requests_find_the_users_own_thread_by_the_name(group_server, user, shared):
    """Of the other one, nothing."""
    own = lose(user, shared)
    answer: Callable[[str], Any] = lambda path: httpx.get(  # noqa: E731
        f"{group_server.url}/agents/{path}", headers={"Cookie": cookie_of(user)}, trust_env=False
    ).json()
    assert answer(f"threads/{shared.pk}/")["id"] == str(own.pk)
    assert answer(f"threads/{shared.pk}/messages/")["results"] == []
