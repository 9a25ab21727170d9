"""Send streaming responses no faster than their clients read.

uvicorn and hypercorn wait in the ASGI application's ``send`` until the client has read. daphne does not wait and keeps
all unsent data in memory. Under daphne, this module therefore registers a producer with daphne's request object. The
producer is told when the connection's send buffer is full (64 kB), and when the buffer is empty again.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Protocol

MAX_WRAPPERS = 20
"""Maximum number of middleware functions around ``send``."""


class ProducerRequest(Protocol):
    """The part of Twisted's ``http.Request`` that this module uses."""

    channel: object
    """The connection, or None after it was lost."""
    producer: object

    def registerProducer(self, producer: object, streaming: bool) -> None: ...  # noqa: FBT001, N802
    def unregisterProducer(self) -> None: ...  # noqa: N802


class SendBuffer:
    """Whether the send buffer of a response has room. The methods implement Twisted's ``IPushProducer``."""

    def __init__(self) -> None:
        self.has_room = asyncio.Event()
        self.has_room.set()

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """Twisted calls this when the send buffer is full."""
        self.has_room.clear()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        """Twisted calls this when the send buffer is empty again."""
        self.has_room.set()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """Twisted calls this when the connection is lost."""
        self.has_room.set()


def at_readers_pace(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Return an iterator over the parts of a response's body. With daphne, it waits while the send buffer is full.

    Call this in the method ``__aiter__`` of the response.
    """
    # Django does not pass ``send`` to views or responses. Therefore, take ``send`` from the local variables of
    # ``ASGIHandler.send_response``, the function that iterates over the response.
    request = daphne_request_of(sys._getframe(2).f_locals.get("send"))
    return parts if request is None else _paced(parts, request)


async def _paced(parts: AsyncIterator[bytes], request: ProducerRequest) -> AsyncIterator[bytes]:
    buffer = SendBuffer()
    request.registerProducer(buffer, True)  # noqa: FBT003 - Twisted's signature
    try:
        async for part in parts:
            yield part
            await buffer.has_room.wait()
    finally:
        if request.producer is buffer and request.channel is not None:
            request.unregisterProducer()


def daphne_request_of(send: object) -> ProducerRequest | None:
    """Return the request object that daphne's ``send`` writes to, or None for another server.

    daphne's ``send`` is a partial function, and one of its arguments is the request object. If middleware has wrapped
    ``send`` in another function, the closure of this function contains the original under the name ``send``.
    """
    for _ in range(MAX_WRAPPERS):
        for argument in getattr(send, "args", ()):
            if hasattr(argument, "registerProducer"):
                request: ProducerRequest = argument
                return request
        code, cells = getattr(send, "__code__", None), getattr(send, "__closure__", None)
        if code is None or cells is None or "send" not in code.co_freevars:
            return None
        send = cells[code.co_freevars.index("send")].cell_contents
    return None
