"""Hides the shape of messages: parts and chunks of the AI SDK's UI message stream, as plain JSON dicts.

A *part* is one typed piece of a message, a *chunk* one event from which parts are built; both are the dicts that
travel to browsers (format: AI SDK ``UIMessage`` and ``UIMessageChunk``, the subset valid in its versions 6 and 7).
Optional fields are absent, never null.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from durable_agents import strictjson
from durable_agents.conf import config
from durable_agents.exceptions import InvalidPartsError, TooLargeError
from durable_agents.strictjson import clean

Part = dict[str, Any]
Chunk = dict[str, Any]

MAX_FILENAME_CHARS = 200
MAX_PARTS = 1_000
"""Parts of one message, however short."""
MAX_FILES = 20
"""Files of one message, however small."""

_NAME = r"[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,99}"
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}")
_DATA_URL = re.compile(r"data:[^,]{0,300};base64,", re.IGNORECASE)
_ATTACHMENT_URL = re.compile(
    r"(?:https?://[^/?#\\\s]+/)?(?:[^?#:\\\s]*/)?attachments/([0-9a-fA-F-]{32,36})/?", re.ASCII
)


def text_of(parts: Iterable[Part]) -> str:
    """The plain text of the text parts, a blank line between them."""
    return "\n\n".join(part["text"] for part in parts if part.get("type") == "text" and part.get("text"))


def user_parts(
    prompt: str | None, parts: list[Part] | None, *, max_text_chars: int, max_file_bytes: int | None = None
) -> list[Part]:
    """The parts of a user message, checked and cleaned: text, and files: attachments, or within the message itself.

    Give either ``prompt`` (text) or ``parts``. Raises InvalidPartsError for anything that a user may not send and
    TooLargeError for more than ``max_text_chars`` characters of text, or files within the message that are together
    larger than ``max_file_bytes`` (None: the project's ``MAX_ATTACHMENT_BYTES``).
    """
    if (prompt is None) == (parts is None):
        raise InvalidPartsError("Give a prompt (text) or a list of parts, one of the two.")
    checked = _checked(parts if parts is not None else [{"type": "text", "text": prompt}], room=_room(max_file_bytes))
    length = sum(len(part["text"]) for part in checked if part["type"] == "text")
    if length > max_text_chars:
        raise TooLargeError(f"The message has {length} characters; at most {max_text_chars} are allowed.")
    if not any(part["type"] == "file" or part["text"].strip() for part in checked):
        raise InvalidPartsError("The message is empty.")
    return checked


def _room(max_file_bytes: int | None) -> int:
    return config().max_attachment_bytes if max_file_bytes is None else max_file_bytes


def _checked(parts: list[Part], *, room: int) -> list[Part]:
    if len(parts) > MAX_PARTS:
        raise InvalidPartsError(f"A message has at most {MAX_PARTS} parts. Put its text into fewer of them.")
    checked: list[Part] = []
    for part in parts:
        checked.append(_user_part(part, room=room))
        room -= file_size(checked[-1])
    if sum(part["type"] == "file" for part in checked) > MAX_FILES:
        raise InvalidPartsError(f"A message has at most {MAX_FILES} files. Send the others in another message.")
    return checked


def embedded_files(parts: list[Any]) -> dict[int, Part]:
    """The file parts among these whose file is within the message, by their index, checked. Raises InvalidPartsError
    and TooLargeError where one of them, or all together, cannot be; other parts are left to ``user_parts``."""
    embedded = {index: part for index, part in enumerate(parts) if is_embedded(part)}
    return dict(zip(embedded, _checked(list(embedded.values()), room=_room(None)), strict=True))


def is_embedded(part: Any) -> bool:
    """Whether a part is a file that is within the message, or says so: its URL is a ``data:`` URL."""
    is_file = isinstance(part, dict) and part.get("type") == "file" and isinstance(part.get("url"), str)
    return is_file and part["url"][:5].lower() == "data:"


def attachment_id(part: Any) -> UUID | None:
    """The id of the attachment that a file part is, by its URL: the path of one, with or without an origin, wherever
    the app is mounted. None for any other part. Nothing says that there is such an attachment."""
    is_file = isinstance(part, dict) and part.get("type") == "file" and isinstance(part.get("url"), str)
    found = _ATTACHMENT_URL.fullmatch(part["url"][:2000]) if is_file else None
    try:
        return UUID(found[1]) if found else None
    except ValueError:
        return None


def file_part(media_type: str, url: str, filename: str = "") -> Part:
    """The part of a file; one without a name has none."""
    return {"type": "file", "mediaType": media_type, "url": url} | ({"filename": filename} if filename else {})


def _user_part(part: Any, *, room: int) -> Part:
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if isinstance(part, dict) and kind == "text":
        return _text_part(part)
    if isinstance(part, dict) and kind == "file":
        return _file_part(part, room=room)
    raise InvalidPartsError(f"A user message cannot have a part of type {kind!r}; allowed: text, file.")


def _text_part(part: Part) -> Part:
    if not isinstance(part.get("text"), str):
        raise InvalidPartsError("A text part needs a field 'text' that is a string.")
    return {"type": "text", "text": clean(part["text"])}


def _file_part(part: Part, *, room: int) -> Part:
    media_type, filename = part.get("mediaType"), part.get("filename")
    if attachment_id(part) is not None:  # its type and name are known, whatever is said here
        return file_part(clean(media_type or ""), part["url"], clean(filename or ""))
    if filename is not None and not (isinstance(filename, str) and len(filename) <= MAX_FILENAME_CHARS):
        raise InvalidPartsError(f"A 'filename' is a string of at most {MAX_FILENAME_CHARS} characters.")
    if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
        raise InvalidPartsError("A file part needs a field 'mediaType' like 'image/png'.")
    url = f"data:{media_type.lower()};base64,{_encoded_file(part.get('url'), room=room)}"
    return file_part(media_type.lower(), url, clean(filename or ""))


def _encoded_file(url: Any, *, room: int) -> str:
    """The base64 text of a ``data:`` URL. The server fetches nothing that a client names."""
    head = _DATA_URL.match(url) if isinstance(url, str) else None
    if head is None:
        raise InvalidPartsError(
            "The 'url' of a file part must be that of an attachment (POST the file to attachments/ first) or a data: "
            "URL in base64, as a browser's FileReader.readAsDataURL gives it: the server fetches no files."
        )
    encoded: str = url[head.end() :]
    if not encoded:
        raise InvalidPartsError("The file is empty.")
    if _decoded_bytes(encoded) > room:
        raise TooLargeError(f"The files of the message are too large: {max(room, 0)} bytes are left for this one.")
    try:
        base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise InvalidPartsError("The 'url' of a file part is not valid base64.") from error
    return encoded


def file_size(part: Part) -> int:
    """Bytes of the file within a checked file part; 0 for any other part."""
    return _decoded_bytes(file_base64(part)) if is_embedded(part) else 0


def _decoded_bytes(encoded: str) -> int:
    return len(encoded) // 4 * 3 - encoded[-2:].count("=")


def file_base64(part: Part) -> str:
    """The base64 text of a checked file part whose file is within it."""
    encoded: str = part["url"].partition(",")[2]
    return encoded


def joined(chunks: Iterable[Chunk]) -> list[Chunk]:
    """The chunks with neighbouring texts of one part put together."""
    found: list[Chunk] = []
    for chunk in chunks:
        last = found[-1] if found else None
        if last and "delta" in chunk and last["type"] == chunk["type"] and last["id"] == chunk["id"]:
            found[-1] = last | {"delta": last["delta"] + chunk["delta"]}
        else:
            found.append(chunk)
    return found


def fold(chunks: Iterable[Chunk]) -> list[Part]:
    """The parts that a list of chunks builds; parts not ended yet have the state ``streaming``."""
    folded = Fold()
    for chunk in chunks:
        folded.apply(chunk)
    return folded.parts


def close(parts: list[Part]) -> list[Part]:
    """The parts of an attempt that ended early: open text is done, calls whose arguments never came are left out."""
    kept = [part for part in parts if part.get("state") != "input-streaming"]
    return [part | {"state": "done"} if part.get("state") == "streaming" else part for part in kept]


@dataclass
class Fold:
    """Applies chunks one after the other to a growing list of parts."""

    parts: list[Part] = field(default_factory=list)
    open: dict[str, Part] = field(default_factory=dict)

    def apply(self, chunk: Chunk) -> None:
        kind = chunk["type"]
        if kind in {"text-start", "reasoning-start"}:
            self._begin(chunk["id"], {"type": kind.removesuffix("-start"), "text": "", "state": "streaming"})
        elif kind in {"text-delta", "reasoning-delta"}:
            self.open[chunk["id"]]["text"] += chunk["delta"]
        elif kind in {"text-end", "reasoning-end"}:
            self._end(chunk)
        elif kind.startswith("tool-input-"):
            self._tool(chunk)
        elif kind == "start-step":
            self.parts.append({"type": "step-start"})

    def _begin(self, key: str, part: Part) -> None:
        self.open[key] = part
        self.parts.append(part)

    def _end(self, chunk: Chunk) -> None:
        part = self.open.pop(chunk["id"])
        part["state"] = "done"
        if "providerMetadata" in chunk:
            part["providerMetadata"] = chunk["providerMetadata"]

    def _tool(self, chunk: Chunk) -> None:
        call_id = chunk["toolCallId"]
        if call_id not in self.open:
            part = {"type": f"tool-{chunk['toolName']}", "toolCallId": call_id, "state": "input-streaming"}
            self._begin(call_id, part)
        if chunk["type"] == "tool-input-available":
            self.open[call_id] |= {"state": "input-available", "input": chunk["input"]}


LATE_RESULT = "data-late-tool-result"
"""Type of the data part that brings the result of a call which the model did not wait for."""
STILL_RUNNING = "The call is still running. Its result will come in a later message."


@dataclass(frozen=True, kw_only=True)
class CallOutcome:
    """What a tool-call row adds to its part: the call as the model made it and how it ended."""

    tool_call_id: str
    provider_call_id: str
    tool_name: str
    arguments: Any
    status: str
    result: Any = None
    error: str = ""
    approved_arguments: Any = None
    """What a person changed the arguments to; None where they are the model's."""
    is_passed: bool = False
    """Whether the model was told that the call is still running and went on."""
    decision_reason: str | None = None
    """Why a person approved or refused the call, empty where they did not say; None where nobody decided."""

    def part(self) -> Part:
        """The tool part that clients see, by the status of the row. A decision stands with the outcome: while an
        approved call runs, its part is that of any other."""
        part: Part = {
            "type": f"tool-{self.tool_name}",
            "toolCallId": self.tool_call_id,
            "state": PART_STATES[self.status],
            "input": self.arguments,
        }
        if part["state"] == "output-available":
            part["output"] = self.result
        elif part["state"] == "output-error":
            part["errorText"] = self.error or "The tool call failed."
        if part["state"] == "approval-requested":
            part["approval"] = {"id": self.tool_call_id}
        elif self.decision_reason is not None and part["state"] != "input-available":
            decided = {"id": self.tool_call_id, "approved": self.status != "denied"}
            part["approval"] = decided | ({"reason": self.decision_reason} if self.decision_reason else {})
        return part

    def told_to_model(self, *, max_bytes: int) -> str:
        """The text that the model gets as the result of the call; longer ones are cut with a note."""
        if self.is_passed and self.status != "cancelled":  # no later message brings the result of a cancelled one
            text = STILL_RUNNING
        elif self.status == "completed":
            text = self.result if isinstance(self.result, str) else json.dumps(self.result, ensure_ascii=False)
            if self.approved_arguments is not None:
                changed = json.dumps(self.approved_arguments, ensure_ascii=False)
                text = f"[A person changed the arguments to {changed} before the call ran.]\n{text}"
        else:
            text = "Error: " + (self.error or f"the tool call is {self.status}.")
        return _cut(text, max_bytes=max_bytes)


PART_STATES = {
    "approval_requested": "approval-requested",
    "pending": "input-available",
    "running": "input-available",
    "completed": "output-available",
    "failed": "output-error",
    "expired": "output-error",
    "cancelled": "output-error",
    "unknown": "output-error",
    "denied": "output-denied",
}


def _cut(text: str, *, max_bytes: int) -> str:
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= max_bytes:
        return text
    kept = encoded[:max_bytes].decode("utf-8", "ignore")
    return f"{kept}\n[cut: {len(encoded)} bytes in all, the first {max_bytes} are shown]"


def assemble(step_parts: Iterable[Part], outcomes: Mapping[str, CallOutcome]) -> list[Part]:
    """The parts of one step as clients see them: tool parts are filled in from their rows."""
    return [
        outcomes[part["toolCallId"]].part() if part.get("toolCallId") in outcomes else dict(part) for part in step_parts
    ]


def parse_arguments(raw: str, *, max_depth: int = 32) -> Any | None:
    """Tool-call arguments as the model wrote them: a JSON object, or None where they are not one.

    An empty text counts as no arguments.
    """
    try:
        value = strictjson.read(raw or "{}", max_depth=max_depth)
    except ValueError:
        return None
    return clean(value) if isinstance(value, dict) else None
