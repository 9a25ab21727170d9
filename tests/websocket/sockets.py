"""Websockets of the demo's own ASGI application, with real sessions."""

import json
from collections.abc import Callable
from typing import Any

from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async
from channels.layers import channel_layers, get_channel_layer
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from durable_agents.delta_writer import Frame
from tests.websocket.protocol import check

SUBPROTOCOL = "durable-agents.v1"
HOST = "localhost:8000"
ORIGIN = f"http://{HOST}"
PATIENCE_SECONDS = 10
MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


def cookie_of(user: User) -> str:
    """Return the cookie of a session of this user."""
    client = Client()
    client.force_login(user)
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


def _application() -> Any:
    from demo_project.asgi import application

    return application


class Socket:
    """One websocket as a browser has it."""

    def __init__(self, *, headers: dict[str, str], subprotocols: list[str]) -> None:
        given = [(name.encode(), value.encode()) for name, value in {"host": HOST, **headers}.items()]
        self._wire = WebsocketCommunicator(_application(), "/ws/agents/", headers=given, subprotocols=subprotocols)
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


def send_here(group: str, message: dict[str, Any]) -> None:
    """Send over the layer in memory, whose queues belong to one event loop."""
    async_to_sync(get_channel_layer().group_send)(group, {"type": "threads.news", "news": [message]})


async def forget_layer() -> None:
    """Close the channel layer's connections, which are bound to the loop of one test."""
    layer = get_channel_layer()
    if hasattr(layer, "close_connections"):
        await layer.close_connections()
    channel_layers.backends.clear()


async def act(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function where the ORM may be used."""
    return await database_sync_to_async(function)(*arguments, **options)
