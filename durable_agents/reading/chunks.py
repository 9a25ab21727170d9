"""Hides how a step is told in UI message chunks, the same whether it comes in deltas or is committed as a whole.

A *place* says how far a step has been told, by what it says and not by how it was stored: deltas vanish once their
step is committed, and whoever was in the middle of them goes on in the committed parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from durable_agents.models import ToolCall
from durable_agents.parts import Chunk, Part

_WITHIN_A_PART = ("-delta", "-end")
_NAMED_BY_PLACE = ("text-", "reasoning-")


class Place(NamedTuple):
    """So many parts of a step have begun, and so much of the last one was told: 1 for its beginning and its end, and 1
    for each character between."""

    part: int = 0
    offset: int = 0


BEGINNING = Place()

Told = tuple[Place, Chunk]


def placed(chunks: Iterable[Chunk], *, number: int, at: Place = BEGINNING) -> Iterator[Told]:
    """The chunks of stream ``number`` that come after ``at``, each with the place after it. Text and reasoning get ids
    that depend on the place only."""
    for chunk in chunks:
        kind = chunk["type"]
        is_within = kind.endswith(_WITHIN_A_PART)
        at = Place(at.part, at.offset + _size(chunk)) if is_within else Place(at.part + 1, 1)
        named = {"id": f"{kind.partition('-')[0]}-{number}-{at.part}"} if kind.startswith(_NAMED_BY_PLACE) else {}
        yield at, chunk | named


def beyond(told: Iterable[Told], seen: Place) -> Iterator[Told]:
    """What of it was not seen yet; a text that was seen in part is cut."""
    for place, chunk in told:
        if place > seen:
            yield place, _tail(chunk, place.offset - seen.offset) if place.part == seen.part else chunk


def _size(chunk: Chunk) -> int:
    name = _text_field(chunk)
    return len(chunk[name]) if name else 1


def _tail(chunk: Chunk, size: int) -> Chunk:
    name = _text_field(chunk)
    return chunk | {name: chunk[name][-size:]} if name else chunk


def _text_field(chunk: Chunk) -> str:
    return "delta" if "delta" in chunk else "inputTextDelta" if "inputTextDelta" in chunk else ""


def step_chunks(parts: Iterable[Part]) -> Iterator[Chunk]:
    """A whole step: its parts, then the arguments of its calls."""
    parts = list(parts)
    for part in parts:
        yield from _part_chunks(part)
    for part in parts:
        if "toolCallId" in part:
            yield {"type": "tool-input-available", **_call_facts(part), "input": part.get("input")}


def _part_chunks(part: Part) -> Iterator[Chunk]:
    kind = part["type"]
    if kind == "step-start":
        yield {"type": "start-step"}
    elif kind in {"text", "reasoning"}:
        yield {"type": f"{kind}-start"}
        if part["text"]:
            yield {"type": f"{kind}-delta", "delta": part["text"]}
        signed = {"providerMetadata": part["providerMetadata"]} if "providerMetadata" in part else {}
        yield {"type": f"{kind}-end", **signed}
    elif "toolCallId" in part:
        yield {"type": "tool-input-start", **_call_facts(part)}
    else:  # a file, a source or data: the part and its chunk look the same
        yield dict(part)


def _call_facts(part: Part) -> Chunk:
    return {"toolCallId": part["toolCallId"], "toolName": part["type"].removeprefix("tool-")}


def call_chunks(call: ToolCall, *, knows_7: bool) -> Iterator[Chunk]:
    """Where a call stands: the question for approval, the decision, progress, its outcome; nothing where there is
    nothing to tell. Only version 7 of the AI SDK has words for a decision; others learn that a refused call was asked
    for."""
    part = call.outcome().part()
    decided = dict(part.get("approval", {}))
    approval_id = decided.pop("id", None)
    if approval_id is not None and (knows_7 or not decided.get("approved")):
        yield {"type": "tool-approval-request", "toolCallId": call.tool_call_id, "approvalId": approval_id}
    if decided and knows_7:
        yield {"type": "tool-approval-response", "approvalId": approval_id, **decided}
    chunk = _standing(call, part)
    if chunk is not None:
        yield chunk


def _standing(call: ToolCall, part: Part) -> Chunk | None:
    facts = {"toolCallId": call.tool_call_id}
    match part["state"]:
        case "output-available":
            return {"type": "tool-output-available", **facts, "output": part["output"]}
        case "output-error":
            return {"type": "tool-output-error", **facts, "errorText": part["errorText"]}
        case "output-denied":
            return {"type": "tool-output-denied", **facts}
        case "approval-requested":
            return None
    if call.progress is not None:
        return {"type": "tool-output-available", **facts, "output": call.progress, "preliminary": True}
    if call.decision_reason is not None and call.passed_at is None:
        # Approved: clients that show the question, or their answer to it, see that it runs. A client whose message is
        # complete but for an answer would send it again and again.
        return {"type": "tool-input-available", **_call_facts(part), "input": part["input"]}
    return None
