"""Filter server-sent events: drop those that only keep a connection alive, and recognise errors among them.

The clients of litellm and openai take some signs of life for the end of the answer or for garbled JSON, and lose the
codes of errors that come after a status 200, or the whole errors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_ERROR_BYTES = 20_000
MAX_EMPTY_BYTES = 1000
"""No chunk without content is longer, and longer ones are not parsed twice."""

_SIGN = rb"\W*(?:ping|pong|keep[-_ ]?alive|heart[-_ ]?beat)\W*"
_NAMES_SIGN = re.compile(rb"event:" + _SIGN, re.IGNORECASE)
_IS_SIGN = re.compile(_SIGN + rb"|\W*(?:openrouter )?processing\W*", re.IGNORECASE)
"""A text that some servers send as data."""
_SIGN_TYPES = frozenset({"ping", "keepalive", "keep-alive", "heartbeat"})


class EventFilter:
    """Server-sent events without those that only keep the connection alive. A line is passed on as soon as it is
    complete, with a line feed at its end, whichever of the three line ends of the format the server uses. Bodies of
    another format pass through.
    """

    def __init__(self, note_error: Callable[[bytes], None]) -> None:
        self._note_error = note_error
        """Gets the data of every event, and the beginning of a body that has no events."""
        self._begun: bytes = b""
        self._is_binary: bool | None = None
        """Whether the body has no lines, as Bedrock's and SageMaker's: its first byte is that of a length. Its label is
        no evidence: some servers call events plain text, or JSON."""
        self._is_first = True
        self._name: bytes | None = None
        self._is_kept = False
        self._other = b""
        """The beginning of a body that has no events: an error, where the server has sent JSON with status 200."""
        self._may_halve = False
        """Whether the last line ended with a carriage return, of which a line feed may be the second half."""

    def kept(self, received: bytes) -> bytes:
        """Return those of the bytes so far that the reader should see now."""
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
        """Return what is left when the answer is over: a line without its end."""
        last, self._begun = self._begun, b""
        kept = b"".join(self._lines(last)) if last else b""
        self._note_error(self._other)
        return kept

    def _lines(self, line: bytes) -> Iterator[bytes]:
        """Yield the line, after the name of its event, or nothing."""
        if self._is_first:
            line, self._is_first = line.removeprefix(BYTE_ORDER_MARK), False
        field, _, value = line.partition(b":")
        if not line.strip():  # ends an event, where there was one
            if self._is_kept:
                yield line
            self._name, self._is_kept = None, False
        elif field == b"event":
            self._name = line  # held back until the event turns out to have content
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
            # openai's client recognises the end of the stream only after at most one space.
            yield b"data: [DONE]" if field == b"data" and value.strip() == b"[DONE]" else line


def names_sign(event: bytes | None) -> bool:
    """Return whether the line that names an event says that it only keeps the connection alive."""
    return event is not None and _NAMES_SIGN.fullmatch(event) is not None


def is_error(data: bytes) -> bool:
    """Return whether the data of an event is an error, in any provider's format."""
    if not any(word in data for word in (b"error", b"base_resp")):  # spares most chunks from being parsed twice
        return False
    try:
        value = json.loads(data)
    except ValueError:
        return False
    error = value[0] if isinstance(value, list) and value else value  # Google sends a list of one error
    if not isinstance(error, dict):
        return False
    choices = error.get("choices")
    reply = error.get("base_resp")  # MiniMax
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
        return _IS_SIGN.fullmatch(data) is not None  # else ``[DONE]``, or what is garbled
    if isinstance(value, dict):
        return not value or value.get("type") in _SIGN_TYPES or has_empty_choices(value)
    return not (isinstance(value, list) and value)


def has_empty_choices(chunk: Mapping[str, object]) -> bool:
    """Return whether a chunk of OpenAI's format has null choices, or choices with neither a delta nor an end."""
    if "choices" not in chunk or chunk.get("usage") or chunk.get("error"):
        return False
    choices = chunk["choices"]
    if not (isinstance(choices, list) and choices):
        return choices is None
    content = ("delta", "message", "text", "finish_reason", "error")
    return all(isinstance(choice, dict) and not any(map(choice.get, content)) for choice in choices)
