"""A browser's side of a websocket to a server that runs in a process of its own."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_socket

from durable_agents.delta_writer import Frame
from tests.chat.server import Server
from tests.websocket.protocol import check

SECONDS = 20
SUBPROTOCOL = "durable-agents.v1"


class RealSocket:
    """One websocket to a running server."""

    def __init__(self, wire: ClientConnection) -> None:
        self.wire = wire

    def tell(self, text: str | bytes | None = None, **frame: Any) -> None:
        """Send a frame, or text or bytes as they are."""
        self.wire.send(json.dumps(frame) if text is None else text)

    def hear(self) -> Frame:
        """Return the next frame, which is as the published schema says."""
        frame: Frame = json.loads(self.wire.recv(SECONDS))
        check("server", frame)
        return frame

    def ask(self, **frame: Any) -> Frame:
        """Send a request and return the answer to it."""
        self.tell(**{"id": "r1", **frame})
        return self.hear_until(lambda heard: heard.get("id") == "r1")[-1]

    def hear_until(self, wanted: Callable[[Frame], bool]) -> list[Frame]:
        """Return the frames up to the first one that is wanted."""
        frames = [self.hear()]
        while not wanted(frames[-1]):
            frames.append(self.hear())
        return frames

    def end(self) -> tuple[Frame | None, int]:
        """Return the last frame before the server closes, and the close code that has come."""
        last: Frame | None = None
        try:
            while True:
                last = self.hear()
        except ConnectionClosed:
            code = self.wire.protocol.close_code
            assert code is not None
            return last, code


@contextmanager
def connected(
    server: Server,
    *,
    cookie: str | None = None,
    origin: str | None = "own",
    subprotocols: list[str] | None = None,
    max_queue: int | None = 16,
    **headers: str,
) -> Iterator[RealSocket]:
    """Open a socket as a page of the site opens it, or one of `origin`; None is no browser. `max_queue` is how many
    frames are read before the test asks for them.
    """
    given = {"Cookie": cookie, **headers}
    with open_socket(
        f"{server.url.replace('http', 'ws', 1)}/ws/agents/",
        origin=server.url if origin == "own" else origin,  # type: ignore[arg-type]
        subprotocols=subprotocols or [SUBPROTOCOL],  # type: ignore[arg-type]
        additional_headers={name: value for name, value in given.items() if value is not None},
        compression=None,
        proxy=None,
        max_size=None,
        max_queue=max_queue,
        close_timeout=1,
    ) as wire:
        yield RealSocket(wire)
