"""The database goes away under a running web server: callers get a code and when to come again, on every endpoint."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import websockets
from django.contrib.auth.models import User
from django.db import connections
from rest_framework.authtoken.models import Token

import tests.chat.agents
from durable_agents import create_thread
from durable_agents.models import Message
from tests.chat.server import Server
from tests.servers.postgres import PostgresUnderTest

MESSAGE = {"role": "user", "parts": [{"type": "text", "text": "Hello"}]}
REQUESTS = [
    ("GET", "/threads/", {}),
    ("POST", "/threads/", {"json": {"agent": "chatty", "prompt": "Hello"}}),
    ("PATCH", "/threads/t/", {"json": {"title": "New"}}),
    ("DELETE", "/threads/t/", {}),
    ("POST", "/threads/t/messages/", {"json": {"prompt": "Hello"}}),
    ("POST", "/threads/t/stop/", {}),
    ("GET", "/threads/t/events/", {}),
    ("POST", "/attachments/", {"files": {"file": ("a.txt", b"text", "text/plain")}}),
    ("POST", "/chat", {"json": {"id": "t", "messages": [MESSAGE]}}),
    ("GET", "/chat/t/stream", {}),
]


@pytest.fixture
def server(request: pytest.FixtureRequest, own_postgres: PostgresUnderTest) -> Iterator[Server]:
    """Return a running web server on a PostgreSQL of this test's own; the parameter is `DEBUG`."""
    assert tests.chat.agents.chatty
    with Server(own_postgres.env, DEBUG=getattr(request, "param", "0")) as running:
        yield running


@pytest.fixture
def token(own_postgres: PostgresUnderTest) -> str:
    """Return the token of the owner of thread "t"."""
    user = User.objects.create_user("me")
    create_thread("chatty", owner=user, client_id="t")
    return str(Token.objects.create(user=user).key)


def answers(server: Server, token: str) -> list[httpx.Response]:
    """Make each of the requests once."""
    with httpx.Client(headers={"Authorization": f"Token {token}"}, trust_env=False, timeout=30) as client:
        return [client.request(method, f"{server.url}/agents{path}", **body) for method, path, body in REQUESTS]


def problems(responses: list[httpx.Response]) -> set[tuple[int, str, bool]]:
    return {(one.status_code, one.json()["code"], one.headers["Retry-After"].isdigit()) for one in responses}


@pytest.mark.parametrize("server", ["1", "0"], ids=["debug", "production"], indirect=True)
def test_requests_while_the_database_is_down_get_503(server, token, own_postgres):
    own_postgres.stop("immediate")

    assert problems(answers(server, token)) == {(503, "database_unavailable", True)}

    own_postgres.start()
    with httpx.Client(headers={"Authorization": f"Token {token}"}, trust_env=False) as client:
        again = client.post(f"{server.url}/agents/threads/t/messages/", json={"prompt": "Hello"})
    assert again.status_code == 202, again.text


def test_requests_while_the_database_is_read_only_get_503(server, token, own_postgres):
    own_postgres.execute("ALTER DATABASE agents SET default_transaction_read_only = on")
    own_postgres.cut_sessions()
    url, headers = f"{server.url}/agents/threads/t/messages/", {"Authorization": f"Token {token}"}

    refused = httpx.post(url, json={"prompt": "Hello"}, headers=headers, trust_env=False, timeout=30)

    assert problems([refused]) == {(503, "database_unavailable", True)}
    own_postgres.execute("SET default_transaction_read_only = off; ALTER DATABASE agents RESET ALL")
    assert httpx.post(url, json={"prompt": "Hello"}, headers=headers, trust_env=False).status_code == 202


def test_a_command_while_the_database_is_down_is_refused_as_retryable(server, token, own_postgres):
    async def talk() -> list[dict[str, Any]]:
        address = f"{server.url.replace('http', 'ws')}/ws/agents/"
        headers = {"Authorization": f"Token {token}"}
        send = {"type": "send", "id": "1", "thread": "t", "prompt": "Hello", "key": "k"}
        told = []
        async with websockets.connect(address, additional_headers=headers, proxy=None) as socket:
            await socket.send(json.dumps({"type": "ping", "t": 1}))
            await socket.recv()
            for change in (lambda: own_postgres.stop("immediate"), own_postgres.start):
                await asyncio.to_thread(change)
                await socket.send(json.dumps(send))
                told.append(json.loads(await asyncio.wait_for(socket.recv(), 30)))
        return told

    refused, done = asyncio.run(talk())
    connections.close_all()

    assert (refused["type"], refused["code"], refused["retryable"]) == ("error", "database_unavailable", True)
    assert done["type"] == "ok"
    assert Message.objects.filter(role="user").count() == 1
