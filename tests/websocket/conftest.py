"""Sockets of the demo's own ASGI application, with real sessions, against the test database."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from channels.db import database_sync_to_async
from channels.layers import channel_layers, get_channel_layer
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from durable_agents import Agent, create_thread, outbound
from durable_agents.models import Thread
from durable_agents.streaming import Frame
from tests.lifecycle.stage import Declare, declare, worker
from tests.websocket.protocol import check

__all__ = ["declare", "worker"]

SUBPROTOCOL = "durable-agents.v1"
ORIGIN = "http://localhost:8000"
PATIENCE_SECONDS = 10
MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


@pytest.fixture(autouse=True)
def _database(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a database that other threads see, and keep the queue out of it."""
    monkeypatch.setattr("durable_agents.outbound.workers.ring_cluster", lambda _: None)


@pytest.fixture(params=["poller", "hints"])
def delivery(request: pytest.FixtureRequest, settings: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with news found by the poller, and again with news told by the channel layer."""
    in_memory = settings.CHANNEL_LAYERS == MEMORY
    if request.param == "poller":
        settings.CHANNEL_LAYERS = MEMORY
    elif in_memory:
        for module in (outbound, outbound.browsers):
            monkeypatch.setattr(module, "layer_crosses_processes", lambda: True)
    if request.param == "hints":
        monkeypatch.setattr("durable_agents.consumers.HEAL_SECONDS", 3600)
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


def cookie_of(user: User) -> str:
    """Return the cookie of a session of this user."""
    client = Client()
    client.force_login(user)
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


@pytest.fixture
def thread(agent: Agent, user: User) -> Thread:
    """Return a new thread of the user."""
    return create_thread(agent, owner=user)


class Socket:
    """One websocket as a browser has it."""

    def __init__(self, *, headers: dict[str, str], subprotocols: list[str]) -> None:
        from demo_project.asgi import application

        given = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._wire = WebsocketCommunicator(application, "/ws/agents/", headers=given, subprotocols=subprotocols)
        self.subprotocol: str | None = None

    async def open(self) -> "Socket":
        """Shake hands: the server always accepts, and may close at once."""
        accepted, self.subprotocol = await self._wire.connect(timeout=PATIENCE_SECONDS)
        assert accepted
        return self

    async def tell(self, text: str | None = None, **frame: Any) -> None:
        """Send a frame, or some text that is none."""
        await self._wire.send_to(text_data=json.dumps(frame) if text is None else text)

    async def tell_bytes(self, data: bytes) -> None:
        """Send a binary message."""
        await self._wire.send_to(bytes_data=data)

    async def hear(self) -> Frame:
        """Return the next frame, which is as the published schema says."""
        frame: Frame = json.loads(await self._wire.receive_from(timeout=PATIENCE_SECONDS))
        check("server", frame)
        return frame

    async def ask(self, **frame: Any) -> Frame:
        """Send a request and return the answer to it, leaving out news in between. What is done fits the schema."""
        asked = {"id": "r1", **frame}
        await self.tell(**asked)
        answer = await self.hear()
        while answer.get("id") != asked["id"]:
            answer = await self.hear()
        if answer["type"] != "error":
            check("client", asked)
        return answer

    async def hear_until(self, wanted: Callable[[Frame], bool]) -> list[Frame]:
        """Return the frames up to the first one that is wanted."""
        frames = [await self.hear()]
        while not wanted(frames[-1]):
            frames.append(await self.hear())
        return frames

    async def hear_status(self, status: str) -> list[Frame]:
        """Return the frames up to the one that tells this status of the thread."""
        return await self.hear_until(lambda frame: frame["type"] == "thread" and frame["status"] == status)

    async def hears_nothing(self, seconds: float = 0.3) -> bool:
        """Whether no frame comes for a while."""
        return bool(await self._wire.receive_nothing(timeout=seconds))

    async def hear_event(self, *, seconds: float) -> dict[str, Any]:
        """Return the next frame or the end, as the ASGI server gets it."""
        return dict(await self._wire.receive_output(timeout=seconds))

    async def close_code(self) -> int:
        """Return the code with which the server closes."""
        while True:
            event = await self.hear_event(seconds=PATIENCE_SECONDS)
            if event["type"] == "websocket.close":
                return int(event["code"])

    async def leave(self) -> None:
        """Close from this side."""
        await self._wire.disconnect(timeout=PATIENCE_SECONDS)


Open = Callable[..., Awaitable[Socket]]


@pytest.fixture
async def connect(cookie: str) -> Any:
    """Return a function that opens a socket, the user's unless told otherwise."""
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


async def forget_layer() -> None:
    """Close the channel layer's connections, which are bound to the loop of one test."""
    layer = get_channel_layer()
    if hasattr(layer, "close_connections"):
        await layer.close_connections()
    channel_layers.backends.clear()


async def act(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function where the ORM may be used."""
    return await database_sync_to_async(function)(*arguments, **options)
