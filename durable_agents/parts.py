"""Parts and chunks of the AI SDK's UI message stream, as plain JSON dicts.

A *part* is one typed piece of a message, a *chunk* one event from which parts are built; both are the dicts that
travel to browsers (format: AI SDK ``UIMessage`` and ``UIMessageChunk``, the subset valid in its versions 6 and 7).
Optional fields are absent, never null.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard
from uuid import UUID

from django.utils.functional import Promise

from durable_agents import strictjson
from durable_agents.conf import config
from durable_agents.exceptions import InvalidPartsError, TooLargeError
from durable_agents.strictjson import JSON, clean

Part = dict[str, Any]
Chunk = dict[str, Any]

MAX_FILENAME_CHARS = 200
MAX_PARTS = 1_000
"""Maximum number of parts of one message."""
MAX_FILES = 20
"""Maximum number of files of one message."""

_NAME = r"[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,99}"
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}")
_DATA_URL = re.compile(r"data:([^,;]{0,150}(?:;.{0,150}?)?);base64,", re.IGNORECASE)
"""Browsers put the type of a recording in as it is, commas included: ``data:video/webm;codecs=vp8,opus;base64,``."""
_UNSAID = "application/octet-stream"
_ATTACHMENT_URL = re.compile(
    r"(?:https?://[^/?#\\\s]+/)?(?:[^?#:\\\s]*/)?attachments/([0-9a-fA-F-]{32,36})/?", re.ASCII
)


def text_of(parts: Iterable[Part]) -> str:
    """Return the plain text of the text parts, with a blank line between them."""
    return "\n\n".join(part["text"] for part in parts if part.get("type") == "text" and part.get("text"))


def user_parts(
    prompt: str | None, parts: list[Part] | None, *, max_text_chars: int, max_file_bytes: int | None = None
) -> list[Part]:
    """Return the parts of a user message, checked and cleaned: text, and files, as attachments or within the message
    itself.

    Give either ``prompt`` (text) or ``parts``. Raises InvalidPartsError for anything that a user may not send and
    TooLargeError for more than ``max_text_chars`` characters of text, or files within the message that are together
    larger than ``max_file_bytes`` (by default the project's ``MAX_ATTACHMENT_BYTES``).
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
        checked.append(user_part(part, room=room))
        room -= file_size(checked[-1])
    if sum(part["type"] == "file" for part in checked) > MAX_FILES:
        raise InvalidPartsError(f"A message has at most {MAX_FILES} files. Send the others in another message.")
    return checked


def embedded_files(parts: Sequence[object]) -> dict[int, Part]:
    """Return the file parts among these whose file is within the message, by their index, checked. Raises
    InvalidPartsError and TooLargeError where one of them, or all together, are not acceptable; other parts are left to
    ``user_parts``.
    """
    embedded = {index: part for index, part in enumerate(parts) if is_embedded(part)}
    return dict(zip(embedded, _checked(list(embedded.values()), room=_room(None)), strict=True))


def is_embedded(part: object) -> TypeGuard[Part]:
    """Whether a part is a file embedded in the message, or claims to be one: its URL is a ``data:`` URL."""
    url = _file_url(part)
    return url is not None and url[:5].lower() == "data:"


def attachment_id(part: object) -> UUID | None:
    """Return the attachment id of a file part, by its URL: the path of an attachment, with or without an origin,
    wherever the app is mounted. None for any other part. The attachment need not exist.
    """
    found = _ATTACHMENT_URL.fullmatch((_file_url(part) or "")[:2000])
    try:
        return UUID(found[1]) if found else None
    except ValueError:
        return None


def _file_url(part: object) -> str | None:
    """Return the URL of a file part, None for any other value."""
    url = part.get("url") if isinstance(part, dict) and part.get("type") == "file" else None
    return url if isinstance(url, str) else None


def file_part(media_type: str, url: str, filename: str = "") -> Part:
    """Return the part of a file; without a name the part has none."""
    return {"type": "file", "mediaType": media_type, "url": url} | ({"filename": filename} if filename else {})


def user_part(part: object, *, room: int) -> Part:
    """Return one part of a user's message, checked and cleaned. The file within it has at most ``room`` bytes."""
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if isinstance(part, dict) and kind == "text":
        if not isinstance(part.get("text"), str | Promise):
            raise InvalidPartsError("A text part needs a field 'text' that is a string.")
        return {"type": "text", "text": clean(part["text"])}
    if isinstance(part, dict) and kind == "file":
        return user_file(part, room=room)
    raise InvalidPartsError(f"A user message cannot have a part of type {kind!r}; allowed: text, file.")


def user_file(part: Part, *, room: int) -> Part:
    """Return a file part of a user's message, checked and cleaned, with its declared type."""
    media_type, filename = part.get("mediaType"), part.get("filename")
    if attachment_id(part) is not None:  # its type and name are known, whatever is said here
        return file_part(clean(media_type or ""), part["url"], clean(filename or ""))
    if filename is not None and not (isinstance(filename, str) and len(filename) <= MAX_FILENAME_CHARS):
        raise InvalidPartsError(f"A 'filename' is a string of at most {MAX_FILENAME_CHARS} characters.")
    encoded = encoded_file(part.get("url"), room=room)
    declared = declared_type(media_type, part["url"])
    return file_part(declared, f"data:{declared};base64,{encoded}", clean(filename or ""))


def declared_type(media_type: object, url: str) -> str:
    """Return the declared type of a file, from its part or else from its ``data:`` URL, in lower case and without
    parameters. Browsers declare no type if they do not know it; the type is then detected from the file's content.
    """
    head = _DATA_URL.match(url)
    for given in (media_type or "", head[1] if head else ""):
        declared = given.partition(";")[0].strip().lower() if isinstance(given, str) else "?"
        if declared and not _MEDIA_TYPE.fullmatch(declared):
            raise InvalidPartsError("The 'mediaType' of a file part is like 'image/png', or empty.")
        if declared and declared != _UNSAID:
            return declared
    return _UNSAID


def encoded_file(url: object, *, room: int) -> str:
    """Return the base64 text of a ``data:`` URL. The server fetches no URL of a client."""
    head = _DATA_URL.match(url) if isinstance(url, str) else None
    if not isinstance(url, str) or head is None:
        raise InvalidPartsError(
            "The 'url' of a file part must be that of an attachment (POST the file to attachments/ first) or a data: "
            "URL in base64, as a browser's FileReader.readAsDataURL gives it: the server fetches no files."
        )
    encoded = url[head.end() :]
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
    """Return the bytes of the file within a checked file part; 0 for any other part."""
    return _decoded_bytes(file_base64(part)) if is_embedded(part) else 0


def _decoded_bytes(encoded: str) -> int:
    return len(encoded) // 4 * 3 - encoded[-2:].count("=")


def file_base64(part: Part) -> str:
    """Return the base64 text of a checked file part whose file is within it."""
    encoded: str = part["url"].partition(",")[2]
    return encoded


def joined(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Return the chunks with neighbouring texts of one part merged."""
    found: list[Chunk] = []
    for chunk in chunks:
        last = found[-1] if found else None
        if last and "delta" in chunk and last["type"] == chunk["type"] and last["id"] == chunk["id"]:
            found[-1] = last | {"delta": last["delta"] + chunk["delta"]}
        else:
            found.append(chunk)
    return found


def fold(chunks: Iterable[Chunk]) -> list[Part]:
    """Return the parts that a list of chunks builds; parts not ended yet have the state ``streaming``."""
    folded = Fold()
    for chunk in chunks:
        folded.apply(chunk)
    return folded.parts


def close(parts: list[Part]) -> list[Part]:
    """Return the parts of an attempt that ended early: open text is closed, calls without complete arguments are left
    out.
    """
    kept = [part for part in parts if part.get("state") != "input-streaming"]
    return [part | {"state": "done"} if part.get("state") == "streaming" else part for part in kept]


@dataclass
class Fold:
    """Applies chunks one after the other to a growing list of parts."""

    parts: list[Part] = field(default_factory=list)
    open: dict[str, Part] = field(default_factory=dict)

    def apply(self, chunk: Chunk) -> None:
        """Apply the next chunk."""
        kind = chunk["type"]
        if kind in {"text-start", "reasoning-start"}:
            self._begin(chunk["id"], {"type": kind.removesuffix("-start"), "text": "", "state": "streaming"})
        elif kind in {"text-delta", "reasoning-delta"}:
            self.open[chunk["id"]]["text"] += chunk["delta"]
        elif kind in {"text-end", "reasoning-end"}:
            part = self.open.pop(chunk["id"])
            part["state"] = "done"
            if "providerMetadata" in chunk:
                part["providerMetadata"] = chunk["providerMetadata"]
        elif kind.startswith("tool-input-"):
            call_id = chunk["toolCallId"]
            if call_id not in self.open:
                name = chunk["toolName"]
                self._begin(call_id, {"type": f"tool-{name}", "toolCallId": call_id, "state": "input-streaming"})
            if kind == "tool-input-available":
                self.open[call_id] |= {"state": "input-available", "input": chunk["input"]}
        elif kind == "start-step":
            self.parts.append({"type": "step-start"})

    def _begin(self, key: str, part: Part) -> None:
        self.open[key] = part
        self.parts.append(part)


LATE_RESULT = "data-late-tool-result"
"""Type of the data part that brings the result of a call which the model did not wait for."""
STILL_RUNNING = "The call is still running. Its result will come in a later message."


@dataclass(frozen=True, kw_only=True)
class CallOutcome:
    """What a tool-call row adds to its part: the call as the model made it and how it ended."""

    tool_call_id: str
    provider_call_id: str
    tool_name: str
    arguments: JSON
    status: str
    result: JSON = None
    error: str = ""
    approved_arguments: JSON = None
    """The arguments as a person changed them, or None if they are the model's."""
    is_passed: bool = False
    """Whether the model went on after learning that the call is still running."""
    decision_reason: str | None = None
    """Why a person approved or refused the call, empty without a reason; None without a decision."""

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

    def model_text(self, *, max_bytes: int) -> str:
        """The text that the model gets as the result of the call; a longer text is cut with a note."""
        if self.is_passed and self.status != "cancelled":  # no later message brings the result of a cancelled one
            text = STILL_RUNNING
        elif self.status == "completed":
            text = self.result if isinstance(self.result, str) else json.dumps(self.result, ensure_ascii=False)
            if self.approved_arguments is not None:
                changed = json.dumps(self.approved_arguments, ensure_ascii=False)
                text = f"[A person changed the arguments to {changed} before the call ran.]\n{text}"
        else:
            text = "Error: " + (self.error or f"the tool call is {self.status}.")
        encoded = text.encode("utf-8", "replace")
        if len(encoded) <= max_bytes:
            return text
        kept = encoded[:max_bytes].decode("utf-8", "ignore")
        return f"{kept}\n[cut: {len(encoded)} bytes in all, the first {max_bytes} are shown]"


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


def assemble(step_parts: Iterable[Part], outcomes: Mapping[str, CallOutcome]) -> list[Part]:
    """Return the parts of one step as clients see them: tool parts are filled in from their rows."""
    return [
        outcomes[part["toolCallId"]].part() if part.get("toolCallId") in outcomes else dict(part) for part in step_parts
    ]


MAX_QUOTED = 3
"""How often arguments may be JSON within a JSON text, as some servers write them."""
_NOTHING = frozenset({"", "{}", "[]", "null", "None", "undefined"})
"""No arguments, as servers in several languages write it (PHP: ``[]``, Python: ``None``)."""
_EMPTY_FIRST = re.compile(r"(?:\{\s*\}\s*)+(?=\{)")
"""Empty objects before the arguments themselves, which some servers open a call with."""
_BOM = "\ufeff"


def says_nothing(raw: str) -> bool:
    """Return whether a text of arguments is none at all, quoted or not; some servers send that before the real ones."""
    text = "".join(raw.split()).strip(_BOM)
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text.replace("\\", "").strip('"')
    return text in _NOTHING


def parse_arguments(raw: str, *, max_depth: int = 32) -> dict[str, JSON] | None:
    """Return tool-call arguments as the model wrote them: a JSON object, or None if they are not one.

    What ``says_nothing`` accepts counts as no arguments; a JSON text within a JSON string is parsed.
    """
    value: JSON = raw
    try:
        for _ in range(1 + MAX_QUOTED):
            if not isinstance(value, str):
                break
            if says_nothing(value):
                return {}
            text = value.strip().lstrip(_BOM)
            empty = _EMPTY_FIRST.match(text)
            value = strictjson.read(text[empty.end() :] if empty else text, max_depth=max_depth, is_strict=False)
    except ValueError:
        return None
    return clean(value) if isinstance(value, dict) else None
