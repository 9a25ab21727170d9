"""Encode frames as JSON text, once for all clients that receive them."""

from __future__ import annotations

import json

from durable_agents import strictjson
from durable_agents.delta_writer import Frame


def encode(value: object) -> str:
    """Return a value as JSON text.

    An id that the client sent may contain a lone surrogate, which cannot be encoded as UTF-8. In that case, all
    characters outside ASCII are escaped.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if strictjson.is_storable(text) else json.dumps(value, separators=(",", ":"))


class EncodedFrame:
    """A frame about a thread, for any number of clients. It is serialized when the first client needs its text.

    Clients may follow the same thread under different names. The texts for these clients differ only in the name.
    """

    __slots__ = ("_body", "_texts", "frame")

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self._body = ""
        self._texts: dict[str, str] = {}

    def text(self, name: str) -> str:
        """Return the text of the frame. ``name`` is the name of the thread, encoded as JSON."""
        if name not in self._texts:
            self._body = self._body or encode({key: self.frame[key] for key in self.frame if key != "thread"})[:-1]
            self._texts[name] = f'{self._body},"thread":{name}}}'
        return self._texts[name]
