"""Notice when a websocket's client reads more slowly than the server sends.

uvicorn and hypercorn wait in ``send`` until the client has read. daphne never waits: it would keep everything that is
not sent yet in memory. Its network connection, however, reports when its buffer is full (64 kB), and when the buffer is
empty again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Connection(Protocol):
    """The methods of a Twisted transport that are used here."""

    def registerProducer(self, producer: object, streaming: bool) -> None: ...  # noqa: FBT001, N802
    def unregisterProducer(self) -> None: ...  # noqa: N802
    def pauseProducing(self) -> None: ...  # noqa: N802
    def resumeProducing(self) -> None: ...  # noqa: N802


class FlowControl:
    """Whether the client of one websocket keeps up with what it is sent.

    While the buffer is full, nothing is read from the client either. Otherwise a client that only asks and never reads
    could fill the memory with its requests.
    """

    def __init__(self, send: object, on_resume: Callable[[], object]) -> None:
        """``send`` is the ASGI application's ``send``. ``on_resume`` is called when the buffer is empty again."""
        self._on_resume = on_resume
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._full_since = 0.0
        self._transport = connection_of(send)
        if self._transport is not None:
            # Until now, the object that read the HTTP request was registered.
            self._transport.unregisterProducer()
            self._transport.registerProducer(self, True)  # noqa: FBT003 - Twisted's signature

    @property
    def is_full(self) -> bool:
        """Whether the client has not read all of what was sent, and more should not be sent."""
        return not self._has_room.is_set()

    @property
    def full_seconds(self) -> float:
        """How long the buffer has been full."""
        return time.monotonic() - self._full_since if self.is_full else 0.0

    async def wait(self) -> None:
        """Wait until the client has read what was sent."""
        await self._has_room.wait()

    def end(self) -> None:
        """Stop watching the connection, so that it can be closed."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.unregisterProducer()
            transport.resumeProducing()
        self._has_room.set()

    # The methods of Twisted's IPushProducer

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """Handle that the buffer is full."""
        self._full_since = time.monotonic()
        self._has_room.clear()
        if self._transport is not None:
            self._transport.pauseProducing()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        """Handle that the buffer is empty again."""
        self._has_room.set()
        if self._transport is not None:
            self._transport.resumeProducing()
            self._on_resume()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """Handle that the connection is lost."""
        self._transport = None
        self._has_room.set()


def connection_of(send: object) -> Connection | None:
    """Return daphne's network connection, or None for another server. daphne's ``send`` has its protocol object as an
    argument. Channels' session middleware wraps ``send``.
    """
    while hasattr(getattr(send, "__self__", None), "real_send"):
        send = send.__self__.real_send  # type: ignore[attr-defined]
    for argument in getattr(send, "args", ()):
        transport: Connection | None = getattr(argument, "transport", None)
        if hasattr(transport, "registerProducer"):
            return transport
    return None
