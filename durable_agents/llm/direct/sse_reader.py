"""Parse server-sent events with JSON data while the bytes of an answer arrive."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm.sse_filter import BYTE_ORDER_MARK, MAX_ERROR_BYTES, is_empty, names_sign
from durable_agents.redaction import redacted

_parse = json.JSONDecoder().raw_decode
"""A faster form of ``json.loads``, without checks of the input and without a search for white space. For the short JSON
of one token, the checks and the search would take as long as the parsing itself.
"""


class EventStream:
    """Parses the bytes of server-sent events into JSON objects. Drops events that only keep the connection alive.

    Some servers leave out the blank line between events. Therefore, every data line that is complete JSON counts as an
    event.
    """

    def __init__(self, note_error: Callable[[bytes], None]) -> None:
        self.is_done = False
        """Whether the server has sent ``[DONE]``."""
        self._note_error = note_error
        self._begun = b""
        self._is_first = True
        self._may_halve = False
        """Whether the last byte was a carriage return. If a line feed follows, it belongs to the same line ending."""
        self._name = b""
        self._pending = b""
        """Event data that is not complete JSON yet. The next line might complete the JSON."""
        self._other = b""
        """The beginning of a response body that contains no events. Such a body might be an error, sent as JSON with
        status 200.
        """

    def feed(self, received: bytes) -> list[dict[str, Any]]:
        """Return the objects that these bytes complete. Raise ModelError if the data of an event is not JSON."""
        if self._is_first:
            received, self._is_first = (self._begun + received).removeprefix(BYTE_ORDER_MARK), False
            if BYTE_ORDER_MARK.startswith(received):
                self._begun, self._is_first = received, True
                return []
        if self._may_halve or b"\r" in received:
            received = received.removeprefix(b"\n") if self._may_halve else received
            self._may_halve = received.endswith(b"\r")
            received = received.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._begun = (self._begun + received).split(b"\n")
        found = []
        for line in lines:
            if line.startswith(b"data:"):
                if (value := self._value(line[5:])) is not None:
                    found.append(value)
            elif line:
                self._take_other(line)
            elif self._name or self._pending:
                self._end_event()
        return found

    def close(self) -> list[dict[str, Any]]:
        """Parse the rest of the received bytes, and return the objects. Call this at the end of the response.

        If the response has no events, its body is passed to ``note_error``. Raises ModelError if the last event is not
        JSON.
        """
        found = self.feed(b"\n\n") if self._begun else []
        if self._pending:
            self._end_event()
        self._note_error(self._other)
        return found

    def _value(self, data: bytes) -> dict[str, Any] | None:
        if b"error" in data or b"base_resp" in data:  # only data with these words can be an error
            self._note_error(data)
        try:
            text = (self._pending + data if self._pending else data).decode().strip()
            value, end = _parse(text)
        except ValueError:
            end, text = 0, "?"
        if end != len(text):
            if data.strip() == b"[DONE]":
                self.is_done = True
            elif not (is_empty(data) or names_sign(self._name)):
                self._pending += data + b"\n"
            return None
        self._pending = b""
        return value if isinstance(value, dict) else None

    def _take_other(self, line: bytes) -> None:
        if line.startswith(b"event:"):
            self._name = line
        elif not line.startswith((b":", b"id:", b"retry:")) and len(self._other) < MAX_ERROR_BYTES:
            self._other += line

    def _end_event(self) -> None:
        pending, self._pending, self._name = self._pending, b"", b""
        if pending:
            text = redacted(pending[:MAX_ERROR_BYTES].decode("utf-8", "replace"))[:80]
            raise ModelError(ErrorKind.NETWORK, f"The stream contains data that is not JSON: {text!r}.", retryable=True)
