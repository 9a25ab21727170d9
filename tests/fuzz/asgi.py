"""The demo's ASGI application as the fuzzer meets it: a stream of events ends after a second, as if nobody read on.

The fuzzer reads a response to its end, and a stream has none for as long as there may be something to tell.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from demo_project.asgi import application as site

STREAM_SECONDS = 1.0

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """The site, with streams that end."""
    if scope["type"] != "http":
        await site(scope, receive, send)
        return
    box = Box(receive, send)
    try:
        await site(scope, box.receive, box.send)
    finally:
        box.leave()
    await box.end()


class Box:
    """One request; its stream, if it is one, loses its reader after a while and is then ended properly."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._is_over = asyncio.Event()
        self._is_open = False
        self._timer: asyncio.TimerHandle | None = None

    async def receive(self) -> Message:
        """The next message from the client, or that it has left."""
        over = asyncio.ensure_future(self._is_over.wait())
        given = asyncio.ensure_future(self._receive())
        try:
            await asyncio.wait({over, given}, return_when=asyncio.FIRST_COMPLETED)
            return given.result() if given.done() else {"type": "http.disconnect"}
        finally:
            over.cancel()
            given.cancel()

    async def send(self, message: Message) -> None:
        """A message of the site's, passed on."""
        if message["type"] == "http.response.start":
            headers = {name.lower(): value for name, value in message["headers"]}
            if headers.get(b"content-type", b"").startswith(b"text/event-stream"):
                self._timer = asyncio.get_running_loop().call_later(STREAM_SECONDS, self._is_over.set)
        self._is_open = message["type"] == "http.response.start" or bool(message.get("more_body"))
        await self._send(message)

    def leave(self) -> None:
        """The site has said what it had to say."""
        if self._timer is not None:
            self._timer.cancel()

    async def end(self) -> None:
        """End a response that was broken off."""
        if self._is_open and self._is_over.is_set():
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
