"""Message parts and chunks in the AI SDK's format, as plain JSON dicts.

A *part* is one piece of a message, such as a text or a tool call. A *chunk* is one event of a stream; parts are built
from chunks. Both are sent to browsers unchanged. The formats are the AI SDK's ``UIMessage`` and ``UIMessageChunk``,
limited to what versions 6 and 7 both accept. Optional fields are left out, never null.
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
"""Maximum number of parts in one message."""
MAX_FILES = 20
"""Maximum number of files in one message."""

_NAME = r"[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,99}"
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}")
_DATA_URL = re.compile(r"data:([^,;]{0,150}(?:;.{0,150}?)?);base64,", re.IGNORECASE)
"""The head of a ``data:`` URL. The media type may contain commas, as in ``data:video/webm;codecs=vp8,opus;base64,``,
which browsers write for a recording.
"""
_UNSAID = "application/octet-stream"
_ATTACHMENT_URL = re.compile(
    r"(?:https?://[^/?#\\\s]+/)?(?:[^?#:\\\s]*/)?attachments/([0-9a-fA-F-]{32,36})/?", re.ASCII
)


def text_of(parts: Iterable[Part]) -> str:
    """Return the plain text of the text parts, separated by blank lines."""
    return "\n\n".join(part["text"] for part in parts if part.get("type") == "text" and part.get("text"))


def user_parts(
    prompt: str | None, parts: list[Part] | None, *, max_text_chars: int, max_file_bytes: int | None = None
) -> list[Part]:
    """Validate and clean a user's message, given as ``prompt`` (a text) or ``parts``. Return its parts. A file part
    embeds its file or refers to an attachment.

    Raises InvalidPartsError for anything that a user may not send. Raises TooLargeError if the text is longer than
    ``max_text_chars``, or if the embedded files together are larger than ``max_file_bytes``. ``max_file_bytes``
    defaults to ``MAX_ATTACHMENT_BYTES``.
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
    """Validate and clean the parts with embedded files. Return them by their index in ``parts``. All other parts are
    left to ``user_parts``.

    Raises InvalidPartsError if a file is invalid or if there are too many files. Raises TooLargeError if the files
    together are too large.
    """
    embedded = {index: part for index, part in enumerate(parts) if is_embedded(part)}
    return dict(zip(embedded, _checked(list(embedded.values()), room=_room(None)), strict=True))


def is_embedded(part: object) -> TypeGuard[Part]:
    """Return whether a part is a file with a ``data:`` URL, valid or not."""
    url = _file_url(part)
    return url is not None and url[:5].lower() == "data:"


def attachment_id(part: object) -> UUID | None:
    """Return the attachment id from the URL of a file part, or None for any other part.

    The URL may have an origin, and any path before ``attachments/``. This function does not check whether the
    attachment exists.
    """
    found = _ATTACHMENT_URL.fullmatch((_file_url(part) or "")[:2000])
    try:
        return UUID(found[1]) if found else None
    except ValueError:
        return None


def _file_url(part: object) -> str | None:
    """Return the URL of a file part, or None for anything else."""
    url = part.get("url") if isinstance(part, dict) and part.get("type") == "file" else None
    return url if isinstance(url, str) else None


def file_part(media_type: str, url: str, filename: str = "") -> Part:
    """Return a file part. If ``filename`` is empty, the part has no such field."""
    return {"type": "file", "mediaType": media_type, "url": url} | ({"filename": filename} if filename else {})


def user_part(part: object, *, room: int) -> Part:
    """Validate and clean one part of a user's message. An embedded file may have at most ``room`` bytes."""
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if isinstance(part, dict) and kind == "text":
        if not isinstance(part.get("text"), str | Promise):
            raise InvalidPartsError("A text part needs a field 'text' that is a string.")
        return {"type": "text", "text": clean(part["text"])}
    if isinstance(part, dict) and kind == "file":
        return user_file(part, room=room)
    raise InvalidPartsError(f"A user message cannot have a part of type {kind!r}; allowed: text, file.")


def user_file(part: Part, *, room: int) -> Part:
    """Validate and clean a file part of a user's message, and return it with its declared type. An embedded file may
    have at most ``room`` bytes.
    """
    media_type, filename = part.get("mediaType"), part.get("filename")
    if attachment_id(part) is not None:
        # The part refers to a stored attachment, which has its own type and name. Do not check the part's type and
        # name.
        return file_part(clean(media_type or ""), part["url"], clean(filename or ""))
    if filename is not None and not (isinstance(filename, str) and len(filename) <= MAX_FILENAME_CHARS):
        raise InvalidPartsError(f"A 'filename' is a string of at most {MAX_FILENAME_CHARS} characters.")
    encoded = encoded_file(part.get("url"), room=room)
    declared = declared_type(media_type, part["url"])
    return file_part(declared, f"data:{declared};base64,{encoded}", clean(filename or ""))


def declared_type(media_type: object, url: str) -> str:
    """Return the declared type of a file, in lower case and without parameters. The part's ``media_type`` takes
    precedence over the type in the ``data:`` URL.

    Browsers declare ``application/octet-stream`` if they do not know the type. Therefore, this type is returned only if
    no other type is declared.
    """
    head = _DATA_URL.match(url)
    for given in (media_type or "", head[1] if head else ""):
        declared = given.partition(";")[0].strip().lower() if isinstance(given, str) else "?"
        if declared and not _MEDIA_TYPE.fullmatch(declared):
            raise InvalidPartsError("The 'mediaType' of a file part must be a type such as 'image/png', or empty.")
        if declared and declared != _UNSAID:
            return declared
    return _UNSAID


def encoded_file(url: object, *, room: int) -> str:
    """Return the base64 text of a ``data:`` URL. The file may have at most ``room`` bytes.

    Other URLs are refused, because the server must not fetch URLs that clients send.
    """
    head = _DATA_URL.match(url) if isinstance(url, str) else None
    if not isinstance(url, str) or head is None:
        raise InvalidPartsError(
            "The 'url' of a file part must be that of an attachment (POST the file to attachments/ first) or a data: "
            "URL in base64, as made by a browser's FileReader.readAsDataURL. The server fetches no files."
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
    """Return the size in bytes of the file that is embedded in a validated part. If no file is embedded, return 0."""
    return _decoded_bytes(file_base64(part)) if is_embedded(part) else 0


def _decoded_bytes(encoded: str) -> int:
    return len(encoded) // 4 * 3 - encoded[-2:].count("=")


def file_base64(part: Part) -> str:
    """Return the base64 text of the file that is embedded in a validated part."""
    encoded: str = part["url"].partition(",")[2]
    return encoded


def joined(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Return the chunks with consecutive deltas of the same part merged."""
    found: list[Chunk] = []
    for chunk in chunks:
        last = found[-1] if found else None
        if last and "delta" in chunk and last["type"] == chunk["type"] and last["id"] == chunk["id"]:
            found[-1] = last | {"delta": last["delta"] + chunk["delta"]}
        else:
            found.append(chunk)
    return found


def fold(chunks: Iterable[Chunk]) -> list[Part]:
    """Build parts from chunks. Unfinished text and reasoning get the state ``streaming``."""
    folded = Fold()
    for chunk in chunks:
        folded.apply(chunk)
    return folded.parts


def close(parts: list[Part]) -> list[Part]:
    """Return the parts of a model call that ended early: mark unfinished text as done, and drop tool calls with
    incomplete arguments.
    """
    kept = [part for part in parts if part.get("state") != "input-streaming"]
    return [part | {"state": "done"} if part.get("state") == "streaming" else part for part in kept]


@dataclass
class Fold:
    """A list of parts that is built chunk by chunk."""

    parts: list[Part] = field(default_factory=list)
    open: dict[str, Part] = field(default_factory=dict)

    def apply(self, chunk: Chunk) -> None:
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
"""Type of the data part for a late result. A result is late if the run continued without waiting for the call's result.
"""
STILL_RUNNING = "The call is still running. Its result will come in a later message."
STILL_WAITING = "The call is still waiting for a person. Its outcome will come in a later message."


@dataclass(frozen=True, kw_only=True)
class CallOutcome:
    """What a message shows of a tool call: the arguments, the status and the outcome."""

    tool_call_id: str
    provider_call_id: str
    tool_name: str
    arguments: JSON
    status: str
    result: JSON = None
    error: str = ""
    progress: JSON = None
    """The last value that the tool passed to ``ctx.progress``."""
    approved_arguments: JSON = None
    """The arguments as changed by a person, or None if nobody changed them."""
    is_passed: bool = False
    """Whether the run continued without waiting for the call's result. The model got a note that the call is still
    running or waiting.
    """
    is_asked: bool = False
    """Whether the tool call was waiting for a person or a browser when the run continued without waiting for the call's
    result. This attribute has a meaning only if ``is_passed`` is true.
    """
    decision_reason: str | None = None
    """The reason that a person gave for the decision. It is empty if the person gave no reason, and None if nobody
    decided.
    """

    def part(self) -> Part:
        """Return the tool part that clients see.

        While a call runs, its progress is shown as a preliminary output, as in the AI SDK. A person's approval or
        rejection is shown only with the outcome. While an approved call runs, its part looks like that of any other
        running call.
        """
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
        if part["state"] == "input-available" and self.progress is not None:
            part |= {"state": "output-available", "output": self.progress, "preliminary": True}
        return part

    def model_text(self, *, max_bytes: int) -> str:
        """Return the text that the model gets as the result of the call. Longer texts are cut to ``max_bytes`` and end
        with a note.
        """
        # The run has continued without waiting for the call's result. Tell the model that the result comes later.
        # A cancelled tool call gets no result.
        if self.is_passed and self.status != "cancelled":
            text = STILL_WAITING if self.is_asked else STILL_RUNNING
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
    """Return the parts of one step as clients see them. Tool parts are built from ``outcomes``."""
    return [
        outcomes[part["toolCallId"]].part() if part.get("toolCallId") in outcomes else dict(part) for part in step_parts
    ]


MAX_QUOTED = 3
"""How many times a model server may encode the arguments of a tool call as a JSON string. Some servers do it more than
once.
"""
_NOTHING = frozenset({"", "{}", "[]", "null", "None", "undefined"})
"""The texts that model servers send if there are no arguments. For example, a server in PHP can send ``[]``, and a
server in Python ``None``.
"""
_EMPTY_FIRST = re.compile(r"(?:\{\s*\}\s*)+(?=\{)")
"""Empty JSON objects that some model servers send before the actual arguments of a tool call."""
_BOM = "\ufeff"


def says_nothing(raw: str) -> bool:
    """Return whether this text says that a tool call has no arguments.

    Some model servers send this text first, and the real arguments later.
    """
    text = "".join(raw.split()).strip(_BOM)
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text.replace("\\", "").strip('"')
    return text in _NOTHING


def parse_arguments(raw: str, *, max_depth: int = 32) -> dict[str, JSON] | None:
    """Parse the arguments of a tool call as the model wrote them. Return None if they are not a JSON object.

    A text that means "no arguments" (see ``says_nothing``) becomes ``{}``. If the text is a JSON string that contains
    JSON, that JSON is parsed.
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
