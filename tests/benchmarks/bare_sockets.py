"""An ASGI application whose websockets do next to nothing: it shows what the web server and Channels alone cost.

Its websockets answer clients as this project's do, so that the same clients can be used. `{"type": "fan_out", "frames":
50, "ms": 100}` has it send so many frames to every open websocket, one each so many milliseconds.
"""

import asyncio
import json
from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter

from demo_project.asgi import application as demo

FRAME = {
    "type": "delta",
    "stream": "0" * 36,
    "message": "0" * 36,
    "seq": 1,
    "chunks": [{"type": "text-delta", "id": "0", "delta": "five words of some text"}],
    "thread": "0" * 36,
}
SNAPSHOT: dict[str, Any] = {"type": "snapshot", "messages": [], "streams": []}
TEXT = json.dumps(FRAME | {"type": "bare"})


class BareConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One websocket."""

    channel_layer_alias = ""
    opened: set["BareConsumer"] = set()  # noqa: RUF012 - of the process

    async def connect(self) -> None:
        """Accept."""
        self.opened.add(self)
        await self.accept((self.scope.get("subprotocols") or [None])[0])

    async def disconnect(self, code: int) -> None:
        """Forget the socket."""
        self.opened.discard(self)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Answer a frame."""
        frame = json.loads(text_data or "{}")
        match frame["type"]:
            case "subscribe":
                await self.send(json.dumps(SNAPSHOT))
            case "ping":
                await self.send('{"type":"pong"}')
            case "fan_out":
                for _ in range(frame["frames"]):
                    for one in list(self.opened):
                        await one.send(TEXT)
                    await asyncio.sleep(frame["ms"] / 1000)


application = ProtocolTypeRouter(
    {"http": demo.application_mapping["http"], "websocket": AuthMiddlewareStack(BareConsumer.as_asgi())}
)
