"""Signing out ends websockets and event streams at once, whichever process serves them.

Without a notification they would end after a minute, which is longer than these tests wait.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from django.contrib.auth.models import User
from django.test import Client

from durable_agents import create_thread
from durable_agents.models import Thread
from tests.chat.agents import chatty
from tests.chat.client import Body
from tests.chat.server import Server
from tests.websocket.real import connected
from tests.websocket.sockets import cookie_of
from tests.workers import ROOT


@pytest.fixture
def sites(layer_env: dict[str, str]) -> Iterator[list[Server]]:
    """Return two running web servers with one Redis."""
    with ExitStack() as stack:
        servers = [Server(layer_env, application="tests.live.asgi:application") for _ in range(2)]
        yield [stack.enter_context(server) for server in servers]


def sign_out(site: Server, cookie: str) -> None:
    """Sign out by a page of this server."""
    token = Client().get("/admin/login/").cookies["csrftoken"].value
    headers = {"Cookie": f"{cookie}; csrftoken={token}", "X-CSRFToken": token, "Referer": site.url}
    with httpx.Client(base_url=site.url, headers=headers, trust_env=False) as client:
        assert client.post("/admin/logout/").status_code < 400


def ends(thread: Thread, cookie: str, site: Server, *, by) -> int:
    """Open a websocket and an event stream; return the socket's close code after both have ended."""
    client = httpx.Client(base_url=f"{site.url}/agents/", headers={"Cookie": cookie}, trust_env=False, timeout=60)
    with client, connected(site, cookie=cookie) as socket:
        events = Body(client, "GET", f"threads/{thread.pk}/events/").until("snapshot")
        assert socket.ask(type="subscribe", thread=str(thread.pk))["type"] == "snapshot"
        by()
        code = socket.end()[1]
        events.ended()
        return code


@pytest.mark.django_db(transaction=True)
def test_signing_out_at_another_process_ends_what_is_open_with_the_session(sites: list[Server]):
    user = User.objects.create_user("ann", is_staff=True)
    thread, cookie, other = create_thread(chatty, owner=user), cookie_of(user), cookie_of(user)
    with connected(sites[0], cookie=other) as stays:
        stays.ask(type="subscribe", thread=str(thread.pk))
        assert ends(thread, cookie, sites[0], by=lambda: sign_out(sites[1], cookie)) == 4401
        stays.tell(type="ping", t=1)
        assert stays.hear_until(lambda frame: frame["type"] == "pong"), "another session of the user goes on"


@pytest.mark.django_db(transaction=True)
def test_a_deactivated_user_is_signed_out_at_once(sites: list[Server], layer_env: dict[str, str]):
    user = User.objects.create_user("ann")
    thread, cookie = create_thread(chatty, owner=user), cookie_of(user)

    def deactivate() -> None:
        code = "from django.contrib.auth.models import User; u = User.objects.get(); u.is_active = False; u.save()"
        subprocess.run([sys.executable, "manage.py", "shell", "-c", code], env=layer_env, cwd=ROOT, check=True)

    assert ends(thread, cookie, sites[0], by=deactivate) == 4401
