"""One server for all these tests, and people with tokens."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections
from rest_framework.authtoken.models import Token

import tests.chat.agents
from tests.api.calls import person
from tests.chat.client import Chatter
from tests.chat.server import Server
from tests.processes import database_url


@pytest.fixture(scope="session")
def server(django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Return the running server; its database is the tests'."""
    assert tests.chat.agents.chatty
    with Server(child_env | {"TEST_DATABASE_URL": database_url()}) as running:
        yield running
        assert "Internal Server Error" not in running.log, running.log
        assert "Exception inside application" not in running.log, running.log


@pytest.fixture
def chatter(server: Server, transactional_db: None) -> Iterator[Callable[..., Chatter]]:
    """Return what makes somebody who chats, signed in by token."""
    made: list[Chatter] = []

    def chatting(name: str = "me", **facts: Any) -> Chatter:
        token = Token.objects.create(user=person(name, **facts))
        made.append(Chatter(server.url, {"Authorization": f"Token {token.key}"}))
        return made[-1]

    yield chatting
    for one in made:
        one.client.close()


@pytest.fixture
def me(chatter: Callable[..., Chatter]) -> Chatter:
    """Return the one whom most tests are about."""
    return chatter()


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close what threads of a test have opened."""
    yield
    connections.close_all()
