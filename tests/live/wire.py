"""A websocket as a browser has it, read in a thread of its own while frames come."""

import json
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any, Self

from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.sync.client import ClientConnection, connect

HANDSHAKES = 5
PING_SECONDS = 10
"""The server closes sockets of clients that are silent for long."""


def _opened(url: str, headers: dict[str, str]) -> ClientConnection:
    """Open a websocket as browsers do: again when daphne, on a busy machine, drops a handshake after five seconds."""
    for _ in range(HANDSHAKES - 1):
        with suppress(InvalidMessage, TimeoutError):
            return connect(url, additional_headers=headers, open_timeout=20, proxy=None)
    return connect(url, additional_headers=headers, open_timeout=20, proxy=None)


class Wire:
    """One open websocket; `frames` are those that have come so far."""

    def __init__(self, url: str, token: str) -> None:
        self.frames: list[dict[str, Any]] = []
        self.is_closed = False
        self._stack = ExitStack()
        headers = {"Authorization": f"Token {token}"}
        self._wire = self._stack.enter_context(_opened(url, headers))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        told_at = time.monotonic()
        try:
            while True:
                with suppress(TimeoutError):
                    self.frames.append(json.loads(self._wire.recv(timeout=1)))
                if time.monotonic() - told_at > PING_SECONDS:
                    told_at = time.monotonic()
                    self.tell(type="ping")
        except ConnectionClosed:
            self.is_closed = True

    def tell(self, **frame: Any) -> Self:
        """Send a frame."""
        self._wire.send(json.dumps(frame))
        return self

    def subscribe(self, thread: Any) -> Self:
        """Follow a thread, and wait for its snapshot."""
        self.tell(type="subscribe", id="s", thread=str(thread))
        return self.until("snapshot", thread=str(thread))

    def until(self, kind: str, *, seconds: float = 20, **facts: Any) -> Self:
        """Wait for a frame of this type with these facts."""
        deadline = time.monotonic() + seconds
        while not any(frame | {"type": kind} | facts == frame for frame in list(self.frames)):
            assert time.monotonic() < deadline, f"no {kind} {facts}: {self.frames}, {self._wire.close_code}"
            time.sleep(0.02)
        return self

    def count(self, kind: str) -> int:
        """How many frames of this type have come."""
        return sum(frame["type"] == kind for frame in list(self.frames))

    def close(self) -> None:
        """Close it."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
