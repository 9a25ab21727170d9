"""Hides the shape of messages: parts and chunks of the AI SDK's UI message stream, as plain JSON dicts.

A *part* is one typed piece of a message, a *chunk* one event from which parts are built; both are the dicts that
travel to browsers (format: AI SDK ``UIMessage`` and ``UIMessageChunk``, the subset valid in its versions 6 and 7).
Optional fields are absent, never null.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from durable_agents import strictjson
from durable_agents.exceptions import InvalidPartsError, TooLargeError
from durable_agents.strictjson import clean

Part = dict[str, Any]
Chunk = dict[str, Any]

_USER_PART_TYPES = ("text",)


def text_of(parts: Iterable[Part]) -> str:
    """The plain text of the text parts, a blank line between them."""
    return "\n\n".join(part["text"] for part in parts if part.get("type") == "text" and part.get("text"))


def user_parts(prompt: str | None, parts: list[Part] | None, *, max_text_chars: int) -> list[Part]:
    """The parts of a user message, checked and cleaned.

    Give either ``prompt`` (text) or ``parts``. Raises InvalidPartsError for anything that a user may not send and
    TooLargeError for more than ``max_text_chars`` characters of text.
    """
    if (prompt is None) == (parts is None):
        raise InvalidPartsError("Give a prompt (text) or a list of parts, one of the two.")
    checked = [_user_part(part) for part in (parts if parts is not None else [{"type": "text", "text": prompt}])]
    length = sum(len(part["text"]) for part in checked)
    if length > max_text_chars:
        raise TooLargeError(f"The message has {length} characters; at most {max_text_chars} are allowed.")
    if not any(part["text"].strip() for part in checked):
        raise InvalidPartsError("The message is empty.")
    return checked


def _user_part(part: Any) -> Part:
    if not isinstance(part, dict) or part.get("type") not in _USER_PART_TYPES:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        raise InvalidPartsError(f"A user message cannot have a part of type {kind!r}; allowed: text.")
    if not isinstance(part.get("text"), str):
        raise InvalidPartsError("A text part needs a field 'text' that is a string.")
    return {"type": "text", "text": clean(part["text"])}


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

    def part(self) -> Part:
        """The tool part that clients see, by the status of the row."""
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
        if self.status in {"approval_requested", "denied"}:
            part["approval"] = {"id": self.tool_call_id} | ({"approved": False} if self.status == "denied" else {})
        return part

    def told_to_model(self, *, max_bytes: int) -> str:
        """The text that the model gets as the result of the call; longer ones are cut with a note."""
        if self.status == "completed":
            text = self.result if isinstance(self.result, str) else json.dumps(self.result, ensure_ascii=False)
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
