"""The doctor shows what a running web process has counted about its websockets."""

import json
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User

from durable_agents import add_message, create_thread
from durable_agents.management.diagnosis import check_delivery
from durable_agents.models import Thread
from tests.chat.agents import chatty
from tests.chat.server import Server
from tests.servers.redis import RedisUnderTest
from tests.websocket.real import connected
from tests.websocket.sockets import cookie_of
from tests.workers import until

OFTEN = {"HEAL_SECONDS": 0.5, "STORE_SECONDS": 0.2}


@pytest.fixture
def site(layer_env: dict[str, str]) -> Iterator[Server]:
    """Return a running daphne that stores what it counts at once."""
    env = layer_env | {"TEST_SOCKETS": json.dumps(OFTEN)}
    with Server(env, application="tests.websocket.asgi:application") as server:
        yield server


@pytest.fixture
def user() -> User:
    """Return a user."""
    return User.objects.create_user("ann")


@pytest.fixture
def thread(user: User) -> Thread:
    """Return a thread of the user."""
    return create_thread(chatty, owner=user)


def shows(site: Server, level: str, *parts: str) -> None:
    """Wait until the doctor has a finding of this level with these texts."""

    def is_shown() -> bool:
        findings = [text for found, text, _ in check_delivery() if found == level]
        return any(all(part in text for part in parts) for text in findings)

    until(is_shown, seconds=20, what=lambda: f"{list(check_delivery())} {site.log}")


def test_the_doctor_shows_the_snapshots_and_closes_of_a_web_process(site, user, thread):
    cookie = cookie_of(user)
    with connected(site, cookie=cookie) as stays:
        stays.ask(type="subscribe", thread=str(thread.pk))
        with connected(site, cookie=cookie) as leaves:
            leaves.ask(type="subscribe", thread=str(thread.pk))
        with connected(site, cookie=cookie) as wrong:
            wrong.tell("[")
            assert wrong.end()[1] == 4400
        with connected(site) as nobody:
            nobody.tell(type="ping")
            assert nobody.end()[1] == 4401
        shows(site, "ok", "1 processes", "2 snapshots", "1 with 1000", "1 with 4400", "1 with 4401")
    assert [level for level, _, _ in check_delivery()] == ["ok"]


def test_the_doctor_warns_of_messages_that_were_not_sent_and_of_those_that_did_not_come(
    site, user, thread, own_redis: RedisUnderTest
):
    pid = f"process {site.process.pid}: "
    with connected(site, cookie=cookie_of(user)) as socket:
        socket.ask(type="subscribe", thread=str(thread.pk))
        # This process has no channel layer in common with the server.
        add_message(thread, role="user", parts=[{"type": "text", "text": "Hi"}])
        shows(site, "warning", "1 messages about changes did not arrive", pid)
        own_redis.kill()
        socket.ask(type="send", thread=str(thread.pk), parts=[{"type": "text", "text": "Hi"}])
        shows(site, "warning", "messages about changes were not sent", pid)
