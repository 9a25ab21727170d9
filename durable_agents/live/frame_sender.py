"""Send frames to a websocket's client, and notice when the client reads more slowly than the server sends.

uvicorn and hypercorn wait in ``send`` until the client has read. daphne does not wait and keeps all unsent data in
memory. Under daphne, this module is therefore registered with the network connection. The connection then reports when
its send buffer is full (64 kB), and when the buffer is empty again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Protocol

from durable_agents.logs import log_error

MAX_WAITING = 64_000
"""If more characters than this wait to be sent, the client reads too slowly. For websockets under daphne, the network
connection reports this instead.
"""

Send = Callable[[Mapping[str, object]], Coroutine[object, None, object]]
"""The ASGI application's ``send``."""


class Connection(Protocol):
    """The methods of a Twisted transport that this module uses."""

    def registerProducer(self, producer: object, streaming: bool) -> None: ...  # noqa: FBT001, N802
    def unregisterProducer(self) -> None: ...  # noqa: N802
    def pauseProducing(self) -> None: ...  # noqa: N802
    def resumeProducing(self) -> None: ...  # noqa: N802


class FlowControl:
    """Tracks whether the client of one websocket reads what it is sent.

    While the send buffer is full, the server reads nothing from the client either. Otherwise, a client that sends
    requests but never reads the replies could fill the server's memory.
    """

    def __init__(self, send: Send, on_resume: Callable[[], object]) -> None:
        """``on_resume`` is called when the send buffer was full and is empty again."""
        self._on_resume = on_resume
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._full_since = 0.0
        self._send = send
        self._waiting: deque[str] = deque()
        self._waiting_size = 0
        self._sender: asyncio.Task[None] | None = None
        self._transport: Connection | None
        self._send_at_once, self._transport = daphne_connection_of(send) or (send, None)
        if self._transport is not None:
            # A transport accepts only one producer. First unregister the previous one, which read the HTTP request.
            self._transport.unregisterProducer()
            self._transport.registerProducer(self, True)  # noqa: FBT003 - Twisted's signature

    def put(self, text: str) -> None:
        """Send a text frame to the client, in order. This method never waits, even if the client reads too slowly."""
        if self._transport is not None:
            # Run daphne's ``send`` without a task, because it never waits. A task for every frame would cost time.
            sending = self._send_at_once({"type": "websocket.send", "text": text})
            with contextlib.suppress(StopIteration):
                sending.send(None)
            return
        self._waiting.append(text)
        self._waiting_size += len(text)
        if self._waiting_size > MAX_WAITING and not self.is_full:
            self._full_since = time.monotonic()
            self._has_room.clear()
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send_waiting())

    async def sent(self) -> None:
        """Wait until the server has taken all frames."""
        while self._sender is not None:
            await asyncio.wait([self._sender])

    async def _send_waiting(self) -> None:
        try:
            while self._waiting:
                text = self._waiting.popleft()
                self._waiting_size -= len(text)
                await self._send({"type": "websocket.send", "text": text})
        except OSError:
            pass  # The client has disconnected. Channels will call ``disconnect``.
        except Exception:
            log_error("a frame could not be sent", action="send")
        finally:
            self._sender = None
        if self.is_full:
            self._has_room.set()
            self._on_resume()

    @property
    def is_full(self) -> bool:
        """Whether the send buffer is full. If so, nothing more should be sent."""
        return not self._has_room.is_set()

    @property
    def full_seconds(self) -> float:
        """How many seconds the send buffer has been full, or 0 if it is not full."""
        return time.monotonic() - self._full_since if self.is_full else 0.0

    async def wait(self) -> None:
        """Wait while the send buffer is full."""
        await self._has_room.wait()

    def end(self) -> None:
        """Stop watching the connection, so that it can be closed."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.unregisterProducer()
            transport.resumeProducing()
        if self._sender is not None:
            self._sender.cancel()
        self._has_room.set()

    # These methods implement Twisted's ``IPushProducer``.

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """Twisted calls this when the send buffer is full."""
        self._full_since = time.monotonic()
        self._has_room.clear()
        if self._transport is not None:
            self._transport.pauseProducing()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        """Twisted calls this when the send buffer is empty again."""
        self._has_room.set()
        if self._transport is not None:
            self._transport.resumeProducing()
            self._on_resume()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """Twisted calls this when the connection is lost."""
        self._transport = None
        self._has_room.set()


def daphne_connection_of(send: Send) -> tuple[Send, Connection] | None:
    """Return daphne's ``send`` and network connection, or None for another server.

    daphne's ``send`` is a partial function. One of its arguments is daphne's protocol object, which has the connection.
    Channels' session middleware wraps ``send``, so the function is unwrapped first.
    """
    while hasattr(getattr(send, "__self__", None), "real_send"):
        send = send.__self__.real_send  # type: ignore[attr-defined]
    for argument in getattr(send, "args", ()):
        transport: Connection | None = getattr(argument, "transport", None)
        if transport is not None and hasattr(transport, "registerProducer"):
            return send, transport
    return None
