"""A client as the AI SDK's websocket transport is one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.chat.client import SECONDS, sending
from tests.chat.screen import Screen
from tests.chat.server import Server

Frame = dict[str, Any]


class ChatSocket:
    """One connection of the SDK's transport."""

    def __init__(self, wire: Any) -> None:
        self.wire = wire

    def tell(self, request: str, kind: str = "send", **fields: Any) -> None:
        """Send a frame as the SDK does."""
        given = {"headers": {}, "body": {}} | fields
        self.wire.send(json.dumps({"type": kind, "requestId": request} | given))

    def say(self, request: str, text: str, *, chat: str = "c1", message: str = "m1", **body: Any) -> None:
        """Send a message."""
        self.tell(request, **sending(text, chat=chat, message=message), body=body)

    def hear(self) -> Frame:
        """Return the next frame."""
        frame: Frame = json.loads(self.wire.recv(SECONDS))
        return frame

    def hear_until(self, kind: str, request: str = "r1") -> list[Frame]:
        """Return the frames of a request up to the first of this type; others are left out."""
        heard: list[Frame] = []
        while not heard or heard[-1]["type"] != kind:
            frame = self.hear()
            heard += [frame] if frame["requestId"] == request else []
        return heard

    def problem(self, request: str = "r1") -> str:
        """Return the code of the error that refuses a request."""
        error = json.loads(self.hear_until("error", request)[-1]["errorText"])
        assert set(error) == {"code", "detail"}
        return str(error["code"])

    def close_code(self) -> int:
        """Return the code with which the server closes."""
        with pytest.raises(ConnectionClosed):
            self.wire.recv(SECONDS)
        return int(self.wire.protocol.close_code)


def chunks_of(frames: list[Frame]) -> list[Frame]:
    """Return the chunks, which are numbered from 0."""
    numbered = [frame for frame in frames if frame["type"] == "chunk"]
    assert [frame["sequence"] for frame in numbered] == list(range(len(numbered)))
    return [frame["chunk"] for frame in numbered]


def shown(frames: list[Frame]) -> Screen:
    """Return what the client shows after these frames."""
    return Screen(knows_7=True).take(chunks_of(frames))


@contextmanager
def connected(server: Server, headers: dict[str, str], path: str = "chat/chatty/") -> Iterator[ChatSocket]:
    """Open a connection."""
    url = f"{server.url.replace('http', 'ws', 1)}/ws/agents/{path}"
    with connect(url, additional_headers=headers, proxy=None, max_size=None, close_timeout=1) as wire:
        yield ChatSocket(wire)
