"""Filter server-sent events: drop events that only keep a connection alive, and recognise errors.

The clients of litellm and openai take some keep-alive events for the end of the answer or for invalid JSON. If an error
comes after status 200, these clients lose the error's code or the whole error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_ERROR_BYTES = 20_000
MAX_EMPTY_BYTES = 1000
"""The maximum size of an event that only keeps the connection alive. Larger events have content and are not parsed
here.
"""

_SIGN = rb"\W*(?:ping|pong|keep[-_ ]?alive|heart[-_ ]?beat)\W*"
_NAMES_SIGN = re.compile(rb"event:" + _SIGN, re.IGNORECASE)
_IS_SIGN = re.compile(_SIGN + rb"|\W*(?:openrouter )?processing\W*", re.IGNORECASE)
"""Matches keep-alive texts that some servers send as the data of an event."""
_SIGN_TYPES = frozenset({"ping", "keepalive", "keep-alive", "heartbeat"})


class EventFilter:
    """Drops server-sent events that only keep the connection alive.

    A line with content is passed on when it is complete. All line endings become line feeds. A binary body passes
    through unchanged.
    """

    def __init__(self, note_error: Callable[[bytes], None]) -> None:
        self._note_error = note_error
        """Called with the data of every event, and with the beginning of a body that has no events."""
        self._begun: bytes = b""
        self._is_binary: bool | None = None
        """Whether the response body is binary and has no lines, as with Bedrock and SageMaker. A binary body begins
        with a length, and the first byte of the length is 0. The content type is not used, because some servers send a
        wrong content type with events.
        """
        self._is_first = True
        self._name: bytes | None = None
        self._is_kept = False
        self._other = b""
        """The beginning of a response body that contains no events. Such a body might be an error, sent as JSON with
        status 200.
        """
        self._may_halve = False
        """Whether the last byte was a carriage return. If a line feed follows, it belongs to the same line ending."""

    def kept(self, received: bytes) -> bytes:
        """Return the received bytes without keep-alive events.

        An incomplete line is held back until its rest arrives.
        """
        if self._is_binary is None:
            self._is_binary = received.startswith(b"\0")
        if self._is_binary:
            return received
        if self._may_halve:
            received = received.removeprefix(b"\n")
        self._may_halve = received.endswith(b"\r")
        if b"\r" in received:
            received = received.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._begun = (self._begun + received).split(b"\n")
        return b"".join(line + b"\n" for whole in lines for line in self._lines(whole))

    def rest(self) -> bytes:
        """Return the last line if it has no line ending. Call this at the end of the answer."""
        last, self._begun = self._begun, b""
        kept = b"".join(self._lines(last)) if last else b""
        self._note_error(self._other)
        return kept

    def _lines(self, line: bytes) -> Iterator[bytes]:
        """Yield the lines to pass on after this line has been received.

        A line with an event's name is held back. It is passed on with the first line of the event's content, or dropped
        if the event has no content.
        """
        if self._is_first:
            line, self._is_first = line.removeprefix(BYTE_ORDER_MARK), False
        field, _, value = line.partition(b":")
        if not line.strip():  # a blank line ends an event
            if self._is_kept:
                yield line
            self._name, self._is_kept = None, False
        elif field == b"event":
            self._name = line  # held back
        elif field == b"data" and (is_empty(value) or names_sign(self._name)):
            self._name = None
        elif field not in {b"", b"id", b"retry"}:
            if field == b"data":
                self._note_error(value)
            elif len(self._other) < MAX_ERROR_BYTES:
                self._other += line
            if self._name is not None:
                yield self._name
            self._name, self._is_kept = None, True
            # openai's client recognises ``[DONE]`` only if at most one space precedes it.
            yield b"data: [DONE]" if field == b"data" and value.strip() == b"[DONE]" else line


def names_sign(event: bytes | None) -> bool:
    """Return whether this line names a keep-alive event, as ``event: ping`` does."""
    return event is not None and _NAMES_SIGN.fullmatch(event) is not None


def is_error(data: bytes) -> bool:
    """Return whether the data of an event is an error in any provider's format."""
    # Do not parse data without these words. Parsing every chunk a second time would be slow.
    if not any(word in data for word in (b"error", b"base_resp")):
        return False
    try:
        value = json.loads(data)
    except ValueError:
        return False
    error = value[0] if isinstance(value, list) and value else value  # Google sends the error in a list
    if not isinstance(error, dict):
        return False
    choices = error.get("choices")
    reply = error.get("base_resp")  # the field for errors in MiniMax's format
    return bool(
        any(error.get(name) for name in ("error", "error_code", "error_msg", "errors"))
        or "error" in (error.get("type"), error.get("object"))
        or (isinstance(choices, list) and any(isinstance(choice, dict) and choice.get("error") for choice in choices))
        or (isinstance(reply, dict) and reply.get("status_code"))
    )


def is_empty(data: bytes) -> bool:
    """Return whether the data of an event only keeps the connection alive."""
    if len(data) > MAX_EMPTY_BYTES:
        return False
    try:
        value = json.loads(data) if data.strip() else None
    except ValueError:
        return _IS_SIGN.fullmatch(data) is not None  # other data that is not JSON is ``[DONE]`` or invalid
    if isinstance(value, dict):
        return not value or value.get("type") in _SIGN_TYPES or has_empty_choices(value)
    return not (isinstance(value, list) and value)


def has_empty_choices(chunk: Mapping[str, object]) -> bool:
    """Return whether a chunk in OpenAI's format is empty.

    In an empty chunk, ``choices`` is null, or no choice has content or a finish reason.
    """
    if "choices" not in chunk or chunk.get("usage") or chunk.get("error"):
        return False
    choices = chunk["choices"]
    if not (isinstance(choices, list) and choices):
        return choices is None
    content = ("delta", "message", "text", "finish_reason", "error")
    return all(isinstance(choice, dict) and not any(map(choice.get, content)) for choice in choices)
