"""Sockets of the demo's own ASGI application, with real sessions, against the test database."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from django.contrib.auth.models import User

from durable_agents import Agent, create_thread, notifications
from durable_agents.models import Thread
from tests.lifecycle.stage import Declare
from tests.websocket.sockets import (
    MEMORY,
    ORIGIN,
    SUBPROTOCOL,
    Socket,
    _application,
    cookie_of,
    forget_layer,
    send_here,
)


@pytest.fixture(autouse=True)
def _database(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a database that other threads see, and keep the queue out of it."""
    monkeypatch.setattr("durable_agents.notifications.workers.notify_cluster", lambda _: None)


@pytest.fixture(params=["poller", "hints"])
def delivery(request: pytest.FixtureRequest, settings: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with news found by the poller, and again with news told by the channel layer."""
    in_memory = settings.CHANNEL_LAYERS == MEMORY
    if request.param == "poller":
        settings.CHANNEL_LAYERS = MEMORY
    elif in_memory:
        for module in (notifications, notifications.clients):
            monkeypatch.setattr(module, "layer_crosses_processes", lambda: True)
        monkeypatch.setattr(notifications.clients, "_publisher", send_here)
    if request.param == "hints":
        monkeypatch.setattr("durable_agents.live.socket_checks.HEAL_SECONDS", 3600)
    return str(request.param)


@pytest.fixture
def polled(settings: Any) -> None:
    """Let news be found by the poller only."""
    settings.CHANNEL_LAYERS = MEMORY


@pytest.fixture
def agent(declare: Declare) -> Agent:
    """Return an agent that the outside may use."""
    return declare(public=True)


@pytest.fixture
def user() -> User:
    """Return a user."""
    return User.objects.create_user("ann", password="secret")


@pytest.fixture
def cookie(user: User) -> str:
    """Return the cookie of the user's session."""
    return cookie_of(user)


@pytest.fixture
def thread(agent: Agent, user: User) -> Thread:
    """Return a new thread of the user."""
    return create_thread(agent, owner=user)


Open = Callable[..., Awaitable[Socket]]


@pytest.fixture
async def connect(cookie: str) -> Any:
    """Return a function that opens a socket, the user's unless told otherwise."""
    _application()  # here, not in the test: the import configures logging, which removes the handler of `caplog`
    opened: list[Socket] = []

    async def made(*, origin: str | None = ORIGIN, cookie: str | None = cookie, **options: Any) -> Socket:
        headers = {"origin": origin, "cookie": cookie, **options.get("headers", {})}
        given = {name: value for name, value in headers.items() if value is not None}
        socket = Socket(headers=given, subprotocols=options.get("subprotocols", [SUBPROTOCOL]))
        opened.append(socket)
        return await socket.open()

    yield made
    for socket in opened:
        await socket.leave()
    await asyncio.sleep(0)
    await forget_layer()
