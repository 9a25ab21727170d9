"""Convert a step to UI message chunks, the same whether it comes as deltas or is committed as a whole.

A *place* says how far a step has been sent, in terms of its content and not of its storage: deltas are deleted once
their step is committed, and a client in the middle of them continues from the committed parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from durable_agents.models import ToolCall
from durable_agents.parts import Chunk, Part

_WITHIN_A_PART = ("-delta", "-end")
_NAMED_BY_PLACE = ("text-", "reasoning-")


class Place(NamedTuple):
    """How many parts of a step have begun, and how much of the last one was sent: 1 for its beginning and its end, and
    1 for each character between.
    """

    part: int = 0
    offset: int = 0


BEGINNING = Place()

PlacedChunk = tuple[Place, Chunk]


def placed(chunks: Iterable[Chunk], *, number: int, at: Place = BEGINNING) -> Iterator[PlacedChunk]:
    """Yield the chunks of stream ``number`` after ``at``, each with the place after it. Ids of text and reasoning
    depend on the place only.
    """
    for chunk in chunks:
        kind = chunk["type"]
        field = _text_field(chunk)
        size = len(chunk[field]) if field else 1
        at = Place(at.part, at.offset + size) if kind.endswith(_WITHIN_A_PART) else Place(at.part + 1, 1)
        named = {"id": f"{kind.partition('-')[0]}-{number}-{at.part}"} if kind.startswith(_NAMED_BY_PLACE) else {}
        yield at, chunk | named


def unsent(chunks: Iterable[PlacedChunk], seen: Place) -> Iterator[PlacedChunk]:
    """Return the part of a chunk that was not sent yet; a text that was sent in part is cut."""
    for place, chunk in chunks:
        if place <= seen:
            continue
        field = _text_field(chunk) if place.part == seen.part else ""
        yield place, chunk | {field: chunk[field][seen.offset - place.offset :]} if field else chunk


def _text_field(chunk: Chunk) -> str:
    return "delta" if "delta" in chunk else "inputTextDelta" if "inputTextDelta" in chunk else ""


def step_chunks(parts: Iterable[Part]) -> Iterator[Chunk]:
    """Yield a whole step: its parts, then the arguments of its calls."""
    parts = list(parts)
    for part in parts:
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
            yield {"type": "tool-input-start", **_call_fields(part)}
        else:  # a file, a source or data: the part and its chunk look the same
            yield dict(part)
    # Last, as in the stream of deltas, where the arguments of calls are complete only at the end of a step.
    for part in parts:
        if "toolCallId" in part:
            yield {"type": "tool-input-available", **_call_fields(part), "input": part.get("input")}


def _call_fields(part: Part) -> Chunk:
    return {"toolCallId": part["toolCallId"], "toolName": part["type"].removeprefix("tool-")}


def call_chunks(call: ToolCall, *, knows_7: bool) -> Iterator[Chunk]:
    """Yield the state of a call: the question for approval, the decision, progress, its outcome; nothing if there is
    nothing new. Only version 7 of the AI SDK has a chunk for a decision; other clients learn that a refused call needed
    approval.
    """
    part = call.outcome().part()
    decided = dict(part.get("approval", {}))
    approval_id = decided.pop("id", None)
    if approval_id is not None and (knows_7 or not decided.get("approved")):
        yield {"type": "tool-approval-request", "toolCallId": call.tool_call_id, "approvalId": approval_id}
    if decided and knows_7:
        yield {"type": "tool-approval-response", "approvalId": approval_id, **decided}
    chunk = _state_chunk(call, part)
    if chunk is not None:
        yield chunk


def _state_chunk(call: ToolCall, part: Part) -> Chunk | None:
    address = {"toolCallId": call.tool_call_id}
    match part["state"]:
        case "output-available":
            return {"type": "tool-output-available", **address, "output": part["output"]}
        case "output-error":
            return {"type": "tool-output-error", **address, "errorText": part["errorText"]}
        case "output-denied":
            return {"type": "tool-output-denied", **address}
        case "approval-requested":
            return None
    if call.progress is not None:
        return {"type": "tool-output-available", **address, "output": call.progress, "preliminary": True}
    if call.decision_reason is not None and call.passed_at is None:
        # Approved: clients that show the question, or their answer to it, see that it runs. A client whose message is
        # complete but for an answer would send it again and again.
        return {"type": "tool-input-available", **_call_fields(part), "input": part["input"]}
    return None
