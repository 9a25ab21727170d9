"""A running daphne, and people who come with tokens, over REST and by websocket."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from django.db import connections

import tests.chat.agents
from durable_agents import create_thread
from durable_agents.models import Thread
from tests.api.calls import person
from tests.chat.server import Server
from tests.people.visitors import Person
from tests.processes import database_url

SETTINGS = {"POLICY": "tests.people.policies.TeamPolicy"}


@pytest.fixture(scope="session")
def team_server(django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Return the running server; its database is the tests'."""
    assert tests.chat.agents.chatty
    more = {"TEST_DATABASE_URL": database_url(), "TEST_DURABLE_AGENTS": json.dumps(SETTINGS)}
    with Server(child_env | more) as running:
        yield running


@pytest.fixture
def comes(team_server: Server, transactional_db: None) -> Iterator[Callable[..., Person]]:
    """Return what makes somebody who comes to the server."""

    def coming(name: str, **facts: Any) -> Person:
        return Person(team_server.url, user=person(name, **facts))

    yield coming
    connections.close_all()


@pytest.fixture
def ann(comes: Callable[..., Person]) -> Person:
    """Return the owner of the thread."""
    return comes("ann")


@pytest.fixture
def bob(comes: Callable[..., Person]) -> Person:
    """Return a colleague, who may see and do everything."""
    return comes("bob")


@pytest.fixture
def visitor(team_server: Server, transactional_db: None) -> Person:
    """Return somebody without an account."""
    return Person(team_server.url, visitor="v1")


@pytest.fixture
def thread(ann: Person) -> Thread:
    """Return a thread of Ann's at rest."""
    return create_thread("chatty", owner=ann.user, scope="team")


@pytest.fixture
def servers(worker_env: dict[str, str]) -> Iterator[Callable[..., tuple[dict[str, str], list[Server]]]]:
    """Return a function that starts web servers with these settings; it returns their environment, too."""
    with ExitStack() as stack:

        def start(count: int, **settings: Any) -> tuple[dict[str, str], list[Server]]:
            settings["POLICY"] = "tests.people.policies.TeamsPolicy"
            env = worker_env | {"TEST_DURABLE_AGENTS": json.dumps(settings)}
            return env, [stack.enter_context(Server(env)) for _ in range(count)]

        yield start
    connections.close_all()


@pytest.fixture
def chat(ann):
    """Return a function that posts a body as it is."""

    def posted(body):
        with (
            httpx.Client(trust_env=False, timeout=60) as client,
            client.stream(
                "POST",
                f"{ann.url}/agents/chat/chatty",
                content=body,
                headers={**ann.headers, "Content-Type": "application/json"},
            ) as answer,
        ):
            return answer.status_code, {} if answer.status_code == 200 else json.loads(answer.read())

    return posted
