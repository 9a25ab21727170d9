"""A ticket is as good as what it was fetched with, and so is the websocket that it opened."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from rest_framework.authtoken.models import Token

from durable_agents import create_thread
from tests.chat.agents import chatty
from tests.chat.client import Chatter
from tests.chat.server import Server
from tests.processes import database_url
from tests.websocket.real import RealSocket, connected
from tests.websocket.site import bearer
from tests.websocket.sockets import cookie_of


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def site(request: pytest.FixtureRequest, django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Return a running server that asks three times a second whether everybody is still signed in."""
    env = child_env | {
        "TEST_DATABASE_URL": database_url(),
        "TEST_SOCKETS": json.dumps({"RECHECK_SECONDS": 0.3}),
        "DJANGO_SETTINGS_MODULE": "tests.websocket.site",
    }
    with Server(env, kind=request.param, application="tests.websocket.asgi:application") as running:
        yield running


def by_session(user: User) -> dict[str, str]:
    """Return the headers of a signed-in browser."""
    cookie = cookie_of(user)
    return {"Cookie": f"{cookie}; csrftoken={'c' * 32}", "X-CSRFToken": "c" * 32}


def by_token(user: User) -> dict[str, str]:
    """Return the headers of REST framework's tokens."""
    return {"Authorization": f"Token {Token.objects.get_or_create(user=user)[0].key}"}


def by_password(user: User) -> dict[str, str]:
    """Return the headers of somebody who sends name and password."""
    return {"Authorization": f"Basic {base64.b64encode(b'ann:secret').decode()}"}


def by_key(user: User) -> dict[str, str]:
    """Return the header of the project's own keys."""
    User.objects.filter(pk=user.pk).update(first_name="key-1")
    return {"X-Api-Key": "key-1"}


def by_bearer(user: User) -> dict[str, str]:
    """Return the header of a JWT that lasts a few seconds."""
    return {"Authorization": f"Bearer {bearer(user, 4)}"}


def by_jwt_cookie(user: User) -> dict[str, str]:
    """Return such a token as a cookie."""
    return {"Cookie": f"jwt={bearer(user, 4)}"}


def sign_out(user: User) -> None:
    """End all sessions."""
    Session.objects.all().delete()


def change_password(user: User) -> None:
    """Give the user another one."""
    user.set_password("another")
    user.save()


def revoke_token(user: User) -> None:
    """Delete the token."""
    Token.objects.filter(user=user).delete()


def revoke_key(user: User) -> None:
    """Take the key away."""
    User.objects.filter(pk=user.pk).update(first_name="")


def lock_out(user: User) -> None:
    """Let the user be signed in no more."""
    User.objects.filter(pk=user.pk).update(is_active=False)


def wait(user: User) -> None:
    """Let the token's time run out."""
    time.sleep(4)


@dataclass(frozen=True)
class Case:
    """A way to come, and what ends it."""

    come: Callable[[User], dict[str, str]]
    end: Callable[[User], None]


CASES = [
    Case(by_session, sign_out),
    Case(by_session, change_password),
    Case(by_session, lock_out),
    Case(by_token, revoke_token),
    Case(by_token, lock_out),
    Case(by_password, change_password),
    Case(by_key, revoke_key),
    Case(by_bearer, wait),
    Case(by_jwt_cookie, wait),
]
NAMES = [f"{case.come.__name__}-{case.end.__name__}" for case in CASES]


def fetch_ticket(site: Server, headers: dict[str, str]) -> str:
    """Return a new ticket."""
    answer = httpx.post(f"{site.url}/agents/ws-ticket/", headers=headers, trust_env=False)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["ticket"])


def enter(socket: RealSocket, ticket: str) -> dict[str, Any]:
    """Say hello with the ticket, and return the answer."""
    socket.tell(type="hello", version=1, ticket=ticket)
    return socket.hear()


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_websocket_ends_soon_after_what_its_ticket_was_fetched_with(site, user, case):
    """And not before."""
    thread = create_thread(chatty, owner=user)
    ticket = fetch_ticket(site, case.come(user))
    with connected(site) as socket:
        assert enter(socket, ticket)["user"] == "ann"
        assert socket.ask(type="subscribe", thread=str(thread.pk))["type"] == "snapshot"
        time.sleep(0.8)
        socket.tell(type="ping", t=1)
        assert socket.hear()["type"] == "pong"
        case.end(user)
        ended = time.monotonic()
        last, code = socket.end()
    assert (last["type"], code) == ("closing", 4401)
    assert time.monotonic() - ended < 5


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_ticket_is_refused_once_what_it_was_fetched_with_is_no_good(site, user, case):
    """It would open what nobody may open any more."""
    ticket = fetch_ticket(site, case.come(user))
    case.end(user)
    with connected(site) as socket:
        answer = enter(socket, ticket)
        assert (answer["type"], answer["code"]) == ("closing", 4401)


def test_a_websocket_by_a_token_outlives_the_password(site, user):
    """As requests with the token do."""
    ticket = fetch_ticket(site, by_token(user))
    change_password(user)
    with connected(site) as socket:
        assert enter(socket, ticket)["user"] == "ann"
        time.sleep(1)
        socket.tell(type="ping", t=1)
        assert socket.hear()["type"] == "pong"


def test_to_be_asked_again_changes_no_session(site, user):
    """A browser that has fetched a ticket stays signed in."""
    headers = by_session(user)
    with connected(site) as socket:
        enter(socket, fetch_ticket(site, headers))
        time.sleep(1)
    assert httpx.get(f"{site.url}/agents/threads/", headers=headers, trust_env=False).status_code == 200
    assert Session.objects.count() == 1


@pytest.mark.parametrize("case", [case for case in CASES if case.come in (by_key, by_bearer, by_jwt_cookie)])
def test_a_response_that_goes_on_ends_soon_after_what_it_was_asked_for_with(site, user, case):
    """Whatever the project signs people in by."""
    create_thread(chatty, owner=user, client_id="c1", prompt="Hello?")
    chatter = Chatter(site.url, case.come(user))
    body = chatter.resume("c1", path="threads/{}/events/").until("snapshot")
    case.end(user)
    body.ended(seconds=12)
    chatter.client.close()
