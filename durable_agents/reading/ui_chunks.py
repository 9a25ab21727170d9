"""Convert a step to UI message chunks. The chunks are the same before and after the commit of the step.

A *place* says how much of a step a client has received. It counts parts and characters. It does not count deltas,
because the deltas are deleted when the step is committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from durable_agents.models import ToolCall
from durable_agents.parts import Chunk, Part

_WITHIN_A_PART = ("-delta", "-end")
_NAMED_BY_PLACE = ("text-", "reasoning-")


class Place(NamedTuple):
    """A place within a step.

    ``part`` is the number of parts that have begun. ``offset`` says how much of the last of these parts was sent. It is
    a sum: 1 for the beginning of the part, 1 for each character, and 1 for the end of the part.
    """

    part: int = 0
    offset: int = 0


BEGINNING = Place()

PlacedChunk = tuple[Place, Chunk]


def placed(chunks: Iterable[Chunk], *, number: int, at: Place = BEGINNING) -> Iterator[PlacedChunk]:
    """Yield each chunk of stream ``number`` together with the place after the chunk.

    ``at`` is the place before the first chunk. Text and reasoning chunks get an id that consists of the stream's number
    and the part's number. A chunk that is sent again has the same id.
    """
    for chunk in chunks:
        kind = chunk["type"]
        field = _text_field(chunk)
        size = len(chunk[field]) if field else 1
        at = Place(at.part, at.offset + size) if kind.endswith(_WITHIN_A_PART) else Place(at.part + 1, 1)
        named = {"id": f"{kind.partition('-')[0]}-{number}-{at.part}"} if kind.startswith(_NAMED_BY_PLACE) else {}
        yield at, chunk | named


def unsent(chunks: Iterable[PlacedChunk], seen: Place) -> Iterator[PlacedChunk]:
    """Yield the chunks after the place ``seen``. If this place is within a text, yield only the rest of the text."""
    for place, chunk in chunks:
        if place <= seen:
            continue
        field = _text_field(chunk) if place.part == seen.part else ""
        yield place, chunk | {field: chunk[field][seen.offset - place.offset :]} if field else chunk


def _text_field(chunk: Chunk) -> str:
    return "delta" if "delta" in chunk else "inputTextDelta" if "inputTextDelta" in chunk else ""


def step_chunks(parts: Iterable[Part]) -> Iterator[Chunk]:
    """Yield the chunks of a whole step: first the chunks of its parts, then the chunks with the arguments of its tool
    calls.
    """
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
        else:
            # For file, source and data parts, the chunk has the same form as the part.
            yield dict(part)
    # The arguments come last, because they also come last while a step is streamed: they are complete only at its end.
    for part in parts:
        if "toolCallId" in part:
            yield {"type": "tool-input-available", **_call_fields(part), "input": part.get("input")}


def _call_fields(part: Part) -> Chunk:
    return {"toolCallId": part["toolCallId"], "toolName": part["type"].removeprefix("tool-")}


def call_chunks(call: ToolCall, *, knows_7: bool) -> Iterator[Chunk]:
    """Yield the chunks for the current state of a tool call.

    These are the request for approval, the decision, and the progress or outcome, as far as they exist. Clients older
    than version 7 of the AI SDK do not get the decision. After an approval, they do not get the request either.
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
            preliminary = {"preliminary": True} if "preliminary" in part else {}
            return {"type": "tool-output-available", **address, "output": part["output"], **preliminary}
        case "output-error":
            return {"type": "tool-output-error", **address, "errorText": part["errorText"]}
        case "output-denied":
            return {"type": "tool-output-denied", **address}
        case "approval-requested":
            return None
    if call.decision_reason is not None and call.passed_at is None:
        # The tool call is approved, but a client may still show the request for approval. This chunk makes the client
        # show a running tool call. Otherwise, a client that sends decisions automatically would repeat its decision.
        return {"type": "tool-input-available", **_call_fields(part), "input": part["input"]}
    return None
